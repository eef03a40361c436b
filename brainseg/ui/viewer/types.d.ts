/**
 * The shapes that pass between modules, for the type checker alone: no browser loads this file.
 * What begins with a header comes from Python: see wire.py and `view_message` in state.py.
 */

/** Top, left, bottom, right in slice pixels; the last two are the first row and column outside. */
export type Box = [number, number, number, number];
/** Top, left, height, width in slice pixels; may be fractional and may reach over the edges of the slice. */
export type Rectangle = [number, number, number, number];
export type Coding = "plane" | "bits" | "raw";
export type Channel = "pre" | "flair" | "post";
export type Window = [low: number, high: number];

export interface Block { shape: number[]; coding: Coding; start: number; size: number }
export interface Message<Header = any> {
  header: Header & { kind: string; blocks: Record<string, Block> };
  body: Uint8Array;
}
/** Values row by row, as many as the product of `shape`. */
export interface NdArray { shape: number[]; data: Uint8Array }
export type Arrays = Record<string, NdArray>;
/** What stays the same while someone works; `header` is one of the three that follow. */
export interface Pack<Header = any> { header: Header; arrays: Arrays }
export interface StudyHeader {
  id: string;
  channels: { name: Channel; scale: number; offset: number; window: Window }[];
  head: Box | null;
}
export interface ProbabilityHeader { id: string }
export interface AttentionHeader { id: string; grid: Rectangle }

/** A figure as text, or the reason why there is none. */
export type Figure = string | { none: string };
export interface Gate { id: string; gate: string; level: number }
export interface Model {
  name: string;
  id: string;
  title: string;
  colour: string;
  dash: number[];
  seen: boolean;
  largest: number | null;
  worst: number | null;
  columns: string[];
  rows: Figure[][];
  gates: Gate[];
}
export interface View {
  label: string;
  study: {
    id: string;
    title: string;
    slices: number;
    height: number;
    width: number;
    aspect: number;
    numbers: number[];
    edges: Record<string, string> | null;
    mirror: [rows: boolean, columns: boolean];
    first: number;
  };
  unit: string;
  reference: { colour: string; largest: number | null; rows: string[] } | null;
  errors: { tp: string; fp: string; fn: string };
  votes: string[];
  marks: Box | null;
  wanted: string[];
  jump: { slice: number; nonce: number } | null;
  models: Model[];
}
export interface Downloads {
  offers: { name: string; title: string; hint: string }[];
  file: { name: string; number: number; type: string } | null;
}

/** What the user has set, kept for each study. */
export interface State {
  slice: number;
  /** Whether the user has chosen a slice; until then each new result may show its own. */
  touched: boolean;
  inputs: boolean;
  agreement: boolean;
  maps: string[];
  fit: boolean;
  base: Channel;
  level: number;
  /** Of each model, the id of the gate chosen at the level. */
  gates: Record<string, string>;
  opacity: number;
  fill: boolean;
  outline: boolean;
  hidden: boolean;
  /** The id of the one panel that is shown large. */
  focus: string | null;
  windows: Record<Channel, Window> | null;
}
export interface Cursor { row: number; column: number }
/** Slice pixels to canvas pixels: x' = a x + e, y' = d y + f, as in a DOMMatrix. */
export interface Lens { a: number; b: 0; c: 0; d: number; e: number; f: number }

/** Where a panel stands and what it is about: one channel, one model, or the whole study. */
export interface Place { id: string; kind: PanelKind; channel?: Channel; index?: number }

/**
 * A kind of panel: one file in `panels/` and one row in `panels/index.js`.
 * What all panels have in common (anatomy, cursor, casing of lines) is not its business.
 */
export interface PanelKind {
  name: string;
  /** Text of the button that shows it. */
  label: string;
  /** What stands over a panel, after the model's name where it has a model. */
  title(panel: import("./panel.js").Panel): string;
  /** What one should know to read it; "" for nothing. */
  about: string;
  legend(panel: import("./panel.js").Panel): Node | null;
  /** A choice of the panel's own, under it. */
  control?(panel: import("./panel.js").Panel): Node | null;
  paint(scene: import("./scene.js").Scene): void;
  /** The line under a panel: its figures for this slice, and the value under the pointer. */
  read(scene: import("./scene.js").Scene): { note?: string; value?: string };
}

/** A gesture: it listens until `signal` ends it. */
export type Gesture = (viewer: import("./viewer.js").Viewer, signal: AbortSignal) => void;

type Buttons =
  | "inputs" | "agreement" | "overlay" | "probability" | "attention" | "errors"
  | "fill" | "outline" | "hide" | "fit" | "largest" | "worst" | "save";
type Places =
  | "extras" | "maps" | "grid" | "said" | "figures" | "where" | "key-reference" | "level-field" | "opacity-field";
/** The elements of viewer.html, by class. */
export type Parts = Record<Buttons, HTMLButtonElement> &
  Record<Places, HTMLElement> &
  Record<"base" | "level", HTMLSelectElement> &
  Record<"slice" | "opacity", HTMLInputElement>;
