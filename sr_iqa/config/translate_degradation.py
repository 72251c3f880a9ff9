"""Real-ESRGAN's and HGGT's degradation numbers, spread over the file's top level and its data set, as one `degradation` block."""

from __future__ import annotations

from .document import Document, KeyPath

STAGE: dict[str, KeyPath] = {
    "blur_sigma": ("blur", "sigma_range"),
    "sinc_prob": ("blur", "sinc_prob"),
    "betag_range": ("blur", "betag_range"),
    "betap_range": ("blur", "betap_range"),
    "resize_prob": ("resize", "prob"),
    "resize_range": ("resize", "scale_range"),
    "gaussian_noise_prob": ("noise", "gaussian_prob"),
    "noise_range": ("noise", "sigma_range"),
    "poisson_scale_range": ("noise", "poisson_scale_range"),
    "gray_noise_prob": ("noise", "gray_prob"),
    "jpeg_range": ("jpeg_range",),
}
"""Names of one stage's numbers; the second stage's end in 2."""

FINAL: dict[str, KeyPath] = {
    "second_blur_prob": ("second", "blur", "prob"),
    "final_sinc_prob": ("final", "sinc_prob"),
}

_COMBINED = ("kernel_list", "kernel_prob", "blur_kernel_size", "blur_kernel_size_min", "blur_kernel_size_max")
_STAGES = (("", "first"), ("2", "second"))


def translate_degradation(document: Document, data: KeyPath) -> None:
    """Moves the numbers to `<data>.degradation`; where its preset is given already, they are ignored with a note."""
    given = [(*place, name) for place in ((), data) for name in _names() if document.get((*place, name)) is not None]
    if not given:
        return
    block = (*data, "degradation")
    if document.get((*block, "preset")) is not None:
        for path in given:
            document.note(path, f"ignored, {'.'.join(map(str, block))}.preset is given")
            document.pop(path)
        return
    two_stages = any(str(path[-1]).endswith("2") or path[-1] in FINAL for path in given)
    document.put((*block, "preset"), "realesrgan" if two_stages else "hggt", document.where(given[0]))
    for place in ((), data):
        for suffix, stage in _STAGES:
            for name, part in STAGE.items():
                _move(document, (*place, name + suffix), (*block, stage, *part))
        for name, part in FINAL.items():
            _move(document, (*place, name), (*block, *part))
    for suffix, stage in _STAGES:
        _kernels(document, data, suffix, (*block, stage, "blur"))


def _names() -> list[str]:
    return [name + suffix for suffix, _ in _STAGES for name in (*STAGE, *_COMBINED)] + list(FINAL)


def _move(document: Document, old: KeyPath, new: KeyPath) -> None:
    if document.get(old) is not None:
        document.move(old, new)


def _kernels(document: Document, data: KeyPath, suffix: str, blur: KeyPath) -> None:
    """Kernel kinds with their frequencies, and the range of kernel sides."""
    names, weights = (*data, f"kernel_list{suffix}"), (*data, f"kernel_prob{suffix}")
    kinds, shares = document.get(names), document.get(weights)
    if isinstance(kinds, list) and isinstance(shares, list) and len(kinds) == len(shares):
        if document.get((*blur, "kernels")) is None:
            document.put((*blur, "kernels"), dict(zip(map(str, kinds), shares, strict=True)), document.where(names))
    elif kinds is not None or shares is not None:
        document.problem(
            names if kinds is not None else weights, f"kernel_list{suffix} and kernel_prob{suffix} must be lists of one length"
        )
    _kernel_sides(document, data, suffix, blur)
    for name in _COMBINED:
        document.pop((*data, name + suffix))


def _kernel_sides(document: Document, data: KeyPath, suffix: str, blur: KeyPath) -> None:
    """HGGT's min and max are half sides; BasicSR draws from 7 to 21 whatever its blur_kernel_size (the padded size) says."""
    low, high = (*data, f"blur_kernel_size_min{suffix}"), (*data, f"blur_kernel_size_max{suffix}")
    halves = (document.get(low), document.get(high))
    if not all(isinstance(half, int) for half in halves) or document.get((*blur, "kernel_size_range")) is not None:
        return
    sides = [2 * half + 1 for half in halves]
    document.put((*blur, "kernel_size_range"), sides, document.where(low))
    if suffix == "2":  # HGGT's last filter draws its side from the second stage's range
        document.put((*blur[:-2], "final", "sinc_kernel_size_range"), sides, document.where(low))
