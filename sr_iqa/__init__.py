"""Super-resolution training guided by image quality assessment."""

__version__ = "0.1.0"
