"""Lower-grade glioma on brain MRI: four U-Nets side by side, from patient folder to overlay."""

__version__ = "0.1.0"
