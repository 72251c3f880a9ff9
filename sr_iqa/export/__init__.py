"""A network as a file for other programs: weights, ONNX or TorchScript, verified before it appears, with a model card beside it."""

from .command import Exported, ExportError, export_network

__all__ = ["ExportError", "Exported", "export_network"]
