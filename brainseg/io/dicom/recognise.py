"""Which sequence a series is, by what its header says of it: no pixels, no geometry."""

from __future__ import annotations

import re
from dataclasses import dataclass

from brainseg.io.series import ROLES, Role

_NOT_LETTERS = re.compile(r"[^a-z0-9+*]+")


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns))


_LOCALIZER = _any(
    r"\blocali[sz]er", r"\bloc\b", r"\bscout", r"\baah", r"\bsurvey", r"\b(?:3|three) ?plane", r"\bpilot\b",
    r"\bcalib", r"\basset cal", r"^asset$", r"\bsmart ?brain", r"\bshim", r"\bref(?:erence)? scan",
    r"\btopogram",
)  # fmt: skip
# In the order in which they are asked: a map is of diffusion before it is anything else.
_SET_ASIDE = (
    (
        "a series or map of diffusion",
        _any(
            r"\bdwi", r"diffusion", r"\bdiff\b", r"\bdti\b", r"\be?adc\b", r"apparent", r"\btrace",
            r"\bb ?(?:500|[1-4]000)\b", r"\bfa\b(?! ?\d)", r"tensor", r"colfa", r"\bresolve\b", r"dwibs",
        ),
    ),
    (
        "a series or map of susceptibility",
        _any(r"\bswi", r"\bswan", r"\bswp\b", r"suscept", r"veno ?bold", r"\bpha images"),
    ),
    (
        "a series or map of perfusion",
        _any(
            r"perf", r"\bpwi\b", r"\bdsc\b", r"\bdce\b", r"\bp?c?asl\b", r"\br?cbv", r"\br?cbf", r"\bmtt\b",
            r"\bttp\b", r"\btmax\b", r"\bk ?trans\b", r"time to peak", r"\bgbp\b", r"\bpbp\b",
        ),
    ),
    (
        "a series of vessels",
        _any(
            r"\b(?:3d)?tof", r"\bmra\b", r"\bmrv\b", r"angio", r"venogra", r"\bpca?3d", r"\btwist\b",
            r"\btricks\b", r"\bcow\b",
        ),
    ),
    ("a series of brain function", _any(r"\bbold\b", r"\bfmri\b", r"resting", r"\brs ?fmri")),
    ("spectroscopy", _any(r"spectro", r"\bmrs\b", r"\bcsi\b", r"\bsvs\b", r"\bpress\b")),
    (
        "a series of another part of the body",
        _any(r"\b[ctl] ?spine", r"\bspine", r"lumbar", r"cervical", r"\bneck\b"),
    ),
)  # fmt: skip
_MAP = _any(
    r"\bmaps?\b",
    r"\bmapping\b",
    r"field ?map",
    r"\bb[01] ?map",
    r"\bt1 ?map",
    r"\bt2 ?map",
    r"\binv ?[12]\b",
    r"\bsubtr",
    r"\bsub\b",
)
_PROJECTION = _any(r"\bmin?ip", r"\bmip", r"projection")

_FLAIR = _any(r"flair", r"dark ?fluid", r"\btirm", r"\bda ?fl\b", r"fluid att")
_T1 = _any(
    r"(?<![a-z0-9])t1(?![0-9])", r"\bmp2? ?rage", r"mprage", r"\bbravo", r"spgr", r"\btfl", r"\bvibe",
    r"\blava", r"\bthrive", r"3d ?t1", r"\btfe\b",
)  # fmt: skip
_T2_STAR = _any(r"t2 ?\*", r"t2 ?star", r"\bgre\b", r"hemo", r"\bheme\b", r"\bffe\b", r"\bmedic\b")
_T2 = _any(
    r"(?<![a-z0-9])t2",
    r"3d ?t2",
    r"\bciss\b",
    r"\bfiesta\b",
)
_STIR = _any(r"\bstir\b")
_DENSITY = _any(r"\bpd\b", r"\bpdw\b", r"proton")

_BEFORE = _any(
    r"\b(?:w ?o|wo|without|non?|un|ohne|sans|sin|pre)[ +]*(?:contrast|con|gado?|gd|km|mdc|ce|c|inj)\b",
    r"\bpre\b(?! ?op)", r"\bw ?o\b", r"\bwithout\b", r"\bnativ[eo]?\b", r"\bunenhanced\b", r"\bnoncon\w*",
    r"\bt1pre\b", r"\bplain\b", r"\bt1n\b",
)  # fmt: skip
_BOTH = _any(r"\bw ?(?:and )?w ?o\b", r"\bwith and without\b")
_AFTER = _any(
    r"\+ ?(?:c|gd|gado?|km|contrast)\b", r"\bc ?\+", r"\bpost(?!er| fossa| ?op| ?surg)", r"\bgd\b",
    r"\bgado?", r"\bce\b", r"\bcontrast", r"\bcon\b", r"\bkm\b", r"\bmdc\b", r"\bt1 ?(?:c|ce|gd)\b",
    r"\bt1post\b", r"\benhanced\b", r"\binj",
    r"gadovist|dotarem|magnevist|prohance|multihance|omniscan|clariscan",
)  # fmt: skip
_MOSAIC = "a Siemens mosaic, many slices in one picture: export it as single slices or as enhanced MR"
_NO_MAGNITUDE = {"P", "PHASE MAP", "PHASE", "R", "I", "IMAGINARY", "REAL"}
_OTHER_CONTRASTS = {"T2", "T2_STAR", "PROTON_DENSITY", "STIR", "TAGGING"}
_NO_CHANNEL = ", for which the networks have no channel"
_UNKNOWN = "not recognised: neither its description nor its times say which sequence it is"
_NO_AGENT = {"", "NO", "NONE", "N", "NA", "N/A", "NIL", "0", "NO CONTRAST", "WITHOUT"}


@dataclass(frozen=True)
class Facts:
    """What a header says of a series.

    Attributes:
        description: the series' and the protocol's, as written.
        image_type: in capitals; its first two say original or derived, primary or secondary.
        scanning: codes such as SE, GR, IR, EP, in capitals.
        sequence_name: as the manufacturer writes it.
        agent: the contrast agent's name, or what stands for it; "" where the header names none.
        echo_ms: echo time.
        repetition_ms: repetition time.
        inversion_ms: inversion time.
        b_value: diffusion weighting in s/mm2.
        contrast: the kind of contrast, as enhanced MR names it (``FLUID_ATTENUATED``, ``T1``), or "".
    """

    description: str = ""
    image_type: tuple[str, ...] = ()
    scanning: frozenset[str] = frozenset()
    sequence_name: str = ""
    agent: str = ""
    echo_ms: float | None = None
    repetition_ms: float | None = None
    inversion_ms: float | None = None
    b_value: float | None = None
    contrast: str = ""

    @property
    def is_derived(self) -> bool:
        """Computed from other images, or a picture of a screen."""
        return "DERIVED" in self.image_type[:1] or "SECONDARY" in self.image_type[1:2]

    @property
    def has_agent(self) -> bool:
        """A contrast agent is named."""
        return self.agent.strip().upper() not in _NO_AGENT


@dataclass(frozen=True)
class Guess:
    """What a series is taken as.

    Attributes:
        role: None where it is set aside.
        why: a phrase.
    """

    role: Role | None
    why: str


def recognise(facts: Facts) -> Guess:
    """The sequence of one series of MR images.

    Descriptions come first, as people wrote them to tell series apart; then the contrast that enhanced MR
    names; then echo, repetition and inversion times. A contrast agent in the header makes a T1 one after
    contrast, unless its description says that it came before.
    """
    said = " ".join(_NOT_LETTERS.sub(" ", facts.description.lower()).split())
    aside = _aside(facts, said)
    if aside:
        return Guess(None, aside)
    weighting, why = _weighting(facts, said)
    if weighting == "flair":
        return Guess("flair", f"FLAIR {why}")
    if weighting != "t1":
        return Guess(None, why)
    return _contrast(facts, said, why)


def _aside(facts: Facts, said: str) -> str:
    kinds, name = set(facts.image_type), facts.sequence_name.lower()
    diffusion = (facts.b_value or 0) > 0 or facts.contrast == "DIFFUSION" or "ep_b" in name
    reasons = (
        ("LOCALIZER" in kinds or _LOCALIZER.search(said), "a localizer"),
        ("MOSAIC" in kinds, _MOSAIC),
        (diffusion or kinds & {"DIFFUSION", "ADC", "TRACEW", "FA"}, "a series or map of diffusion"),
        (facts.contrast == "PERFUSION" or "PERFUSION" in kinds, "a series or map of perfusion"),
        *((pattern.search(said), what) for what, pattern in _SET_ASIDE),
        (kinds & _NO_MAGNITUDE, "a phase, real or imaginary image, not one of magnitude"),
        ("SUBTRACTION" in kinds or _MAP.search(said), "a map or subtraction"),
        (kinds & {"MIP", "MIN_IP", "MINIP", "PROJECTION IMAGE"} or _PROJECTION.search(said), "a projection"),
        ("EP" in facts.scanning and not _FLAIR.search(said), "an echo-planar series"),
    )
    return next((why for holds, why in reasons if holds), "")


def _weighting(facts: Facts, said: str) -> tuple[str, str]:
    """``"flair"`` or ``"t1"`` and how it was recognised, or ``""`` and what it is instead."""
    t1, t2 = _T1.search(said), _T2.search(said)
    by_words, by_header = "by its description", "by the contrast that its header names"
    rules = (
        (_FLAIR.search(said) and not (t1 and _is_short(facts)), "flair", by_words),
        (t1 and not t2, "t1", by_words),
        (_STIR.search(said), "", f"a STIR{_NO_CHANNEL}"),
        (_T2_STAR.search(said), "", f"weighted by T2*{_NO_CHANNEL}"),
        (t2 or _DENSITY.search(said), "", f"weighted by T2 or proton density{_NO_CHANNEL}"),
        (facts.contrast == "FLUID_ATTENUATED", "flair", by_header),
        (facts.contrast == "T1", "t1", by_header),
        (facts.contrast in _OTHER_CONTRASTS, "", f"weighted by T2 or proton density{_NO_CHANNEL}"),
    )
    return next(((what, why) for holds, what, why in rules if holds), None) or _by_times(facts)


def _is_short(facts: Facts) -> bool:
    # GE names a T1 with inversion "T1 FLAIR"; a true FLAIR has a long echo.
    return facts.echo_ms is None or facts.echo_ms < 50


def _by_times(facts: Facts) -> tuple[str, str]:
    echo, repetition, inversion = facts.echo_ms, facts.repetition_ms, facts.inversion_ms or 0.0
    if echo is None or repetition is None:
        return "", _UNKNOWN
    gradient = "GR" in facts.scanning
    short = echo <= 10 and (repetition <= 700 or inversion >= 500) if gradient else echo <= 30
    times = f"by its times (echo {echo:.4g} ms, repetition {repetition:.5g} ms"
    rules = (
        (
            inversion >= 1500 and echo >= 60 and repetition >= 4000,
            "flair",
            f"{times}, inversion {inversion:.4g} ms)",
        ),
        (short and (gradient or 200 <= repetition <= 1200), "t1", f"{times})"),
        (echo >= 60 and repetition >= 2000 and not inversion, "", f"weighted by T2 {times}){_NO_CHANNEL}"),
    )
    return next(((what, why) for holds, what, why in rules if holds), ("", _UNKNOWN))


def _contrast(facts: Facts, said: str, why: str) -> Guess:
    before = bool(_BEFORE.search(said))
    after = bool(_AFTER.search(_BEFORE.sub(" ", said)))
    if (before and after) or _BOTH.search(said):
        return Guess(None, "its description speaks of before and of after contrast: choose which it is")
    if after:
        return Guess("post", f"{ROLES['post']} {why}")
    if before:
        return Guess("pre", f"{ROLES['pre']} {why}")
    if facts.has_agent:
        return Guess("post", f"T1 {why}, after contrast by the agent that its header names")
    return Guess("pre", f"T1 {why}, no contrast agent is named")
