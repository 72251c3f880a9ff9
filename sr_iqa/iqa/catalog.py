"""The catalogue of metrics: every fact about them that other rooms rely on, fixed here once.

Modes, directions and ranges are pyiqa's own but for `dmm` (a test compares them); ranges are rough, as pyiqa says. Whether a gradient
reaches the image, which files a metric needs, and whether a batch gives the same values as single images was found out by running it with
random weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf

from .weights import PYIQA_WEIGHTS, WeightFile


@dataclass(frozen=True)
class MetricInfo:
    """What is known of a metric without building it."""

    name: str
    mode: str
    """NR: scores an image by itself; FR: against a reference."""
    lower_better: bool
    value_range: tuple[float, float]
    """Roughly, from the worst to the best value or the other way round; open ends are infinite."""
    files: tuple[WeightFile, ...] = ()
    differentiable: bool = True
    """A usable gradient reaches the image."""
    one_image: bool = False
    """It takes a single image per call; a batch is looped over."""
    smallest: int = 1
    """Least side of an image in pixels."""
    multiple: int = 1
    """Sides of an image must be multiples of this."""
    needs: str = ""
    """What it needs besides weights."""
    refused: str = ""
    """Why it cannot be used here; empty for metrics that can."""

    @property
    def weights(self) -> str:
        """none (needs none), shipped (with a package), present, or `missing: <names>`."""
        missing = ", ".join(file.name for file in self.files if not file.here)
        if missing:
            return f"missing: {missing}"
        if not self.files:
            return "none"
        return "shipped" if all(file.shipped for file in self.files) else "present"


def _metric(name: str, lower_better: bool, low: float, high: float, *files: str | WeightFile, mode: str, **facts: object) -> MetricInfo:
    """A row; a bare file name stands for a file of pyiqa's collection."""
    found = tuple(file if isinstance(file, WeightFile) else WeightFile(f"{PYIQA_WEIGHTS}/{file}", "pyiqa") for file in files)
    if "refused" in facts:
        facts["needs"] = f"not usable: {facts['refused']}"
    return MetricInfo(name, mode, lower_better, (low, high), found, **facts)  # pyright: ignore[reportArgumentType]


def _torchvision(file: str) -> WeightFile:
    return WeightFile(f"https://download.pytorch.org/models/{file}", "checkpoints")


def _clip(checksum: str, file: str, folder: str = "clip") -> WeightFile:
    return WeightFile(f"https://openaipublic.azureedge.net/clip/models/{checksum}/{file}", folder)


def _facexlib(path: str) -> WeightFile:
    return WeightFile(f"https://github.com/xinntao/facexlib/releases/download/{path}", "pyiqa")


def _hf(repository: str) -> WeightFile:
    return WeightFile(f"https://huggingface.co/{repository}", "huggingface")


_nr: Callable[..., MetricInfo] = partial(_metric, mode="NR")
_fr: Callable[..., MetricInfo] = partial(_metric, mode="FR")
HIGHER, LOWER = False, True
B32 = ("40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af", "ViT-B-32.pt")
L14 = ("b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836", "ViT-L-14.pt")
CLIP_RN50 = _clip("afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762", "RN50.pt")
CLIP_B32, CLIP_L14 = _clip(*B32), _clip(*L14)
OPENAI_B32, OPENAI_L14 = _clip(*B32, folder="openai"), _clip(*L14, folder="openai")
ALEXNET = _torchvision("alexnet-owt-7be5be79.pth")
VGG16 = _torchvision("vgg16-397923af.pth")
VGG19 = _torchvision("vgg19-dcbb9e9d.pth")
TIMM_RESNET50 = _hf("timm/resnet50.a1_in1k")
TIMM_VIT = _hf("timm/vit_base_patch8_224.augreg2_in21k_ft_in1k")
HF_CLIP_B16 = _hf("openai/clip-vit-base-patch16")
ONE_ALIGN = _hf("q-future/one-align")
QREALIGN_MINI = _hf("q-future/Q-ReAlign-Mini-0.8B")
ARNIQA = WeightFile(f"{PYIQA_WEIGHTS}/ARNIQA.pth", "checkpoints")
FACE = (_facexlib("v0.1.0/detection_Resnet50_Final.pth"), _facexlib("v0.2.2/parsing_parsenet.pth"))
NIQE_PARAMETERS = WeightFile("https://github.com/XPixelGroup/BasicSR/raw/master/basicsr/metrics/niqe_pris_params.npz", "basicsr")
NANO = WeightFile("nano.safetensors", "assets")
NANO_ROBUST = WeightFile("nano_robust.safetensors", "assets")

# name, direction, range, weight files in the order in which they are loaded, other facts
ROWS: tuple[MetricInfo, ...] = (
    _nr("nano", HIGHER, 0, 100, NANO, smallest=16),
    _nr("nano_robust", HIGHER, 0, 100, NANO_ROBUST, smallest=16),
    _fr("ahiq", HIGHER, 0, 1, TIMM_RESNET50, TIMM_VIT, "AHIQ_vit_p8_epoch33-da3ea303.pth"),
    _fr("ckdn", HIGHER, 0, 1, "CKDN_model_best-38b27dc6.pth"),
    _fr("lpips", LOWER, 0, 1, ALEXNET, "LPIPS_v0.1_alex-df73285e.pth", smallest=31),
    _fr("lpips-vgg", LOWER, 0, 1, VGG16, "LPIPS_v0.1_vgg-a78928a0.pth", smallest=16),
    _fr("lpips+", LOWER, 0, 1, ALEXNET, "LPIPS_v0.1_alex-df73285e.pth", smallest=31),
    _fr("lpips-vgg+", LOWER, 0, 1, VGG16, "LPIPS_v0.1_vgg-a78928a0.pth", smallest=16),
    _fr("stlpips", LOWER, 0, 1, "alex_shift_tolerant.pth", smallest=21),
    _fr("stlpips-vgg", LOWER, 0, 1, "vgg_shift_tolerant.pth", smallest=18),
    _fr("dists", LOWER, 0, 1, VGG16, "DISTS_weights-f5e65c96.pth"),
    _fr("deepdc", LOWER, 0, 1, VGG19, differentiable=False),
    _fr("ssim", HIGHER, 0, 1, smallest=11),
    _fr("ssimc", HIGHER, 0, 1, smallest=11),
    _fr("psnr", HIGHER, 0, 40),
    _fr("psnry", HIGHER, 0, 60),
    _fr("fsim", HIGHER, 0, 1),
    _fr("ms_ssim", HIGHER, 0, 1, smallest=161),
    _fr("vif", HIGHER, 0, 1, smallest=33),
    _fr("gmsd", LOWER, 0, 1),
    _fr("nlpd", LOWER, 0, 1),
    _fr("vsi", HIGHER, 0, 1),
    _fr("cw_ssim", HIGHER, 0, 1, smallest=64),
    _fr("mad", LOWER, 0, inf),
    _nr("piqe", LOWER, 0, 100, differentiable=False),
    _nr("niqe", LOWER, 0, 100, NIQE_PARAMETERS, smallest=96),
    _nr("niqe_matlab", LOWER, 0, 100, "niqe_matlab_params.mat"),
    _nr("ilniqe", LOWER, 0, 100, "ILNIQE_templateModel.mat"),
    _nr("brisque", LOWER, 0, 150, "brisque_svm_weights.pth"),
    _nr("brisque_matlab", LOWER, 0, 100, "brisque_matlab.mat"),
    _nr("nrqm", HIGHER, 0, 10, "NRQM_model.mat", differentiable=False),
    _nr("pi", LOWER, 0, inf, "NRQM_model.mat", "niqe_modelparameters.mat", differentiable=False),
    _nr("cnniqa", HIGHER, 0, 1, "CNNIQA_koniq10k-e6f14c91.pth"),
    _nr("musiq", HIGHER, 0, 100, "musiq_koniq_ckpt-e95806b9.pth"),
    _nr("musiq-ava", HIGHER, 1, 10, "musiq_ava_ckpt-e8d3f067.pth"),
    _nr("musiq-paq2piq", HIGHER, 0, 100, "musiq_paq2piq_ckpt-364c0c84.pth"),
    _nr("musiq-spaq", HIGHER, 0, 100, "musiq_spaq_ckpt-358bb6af.pth"),
    _nr("nima", HIGHER, 0, 10, "NIMA_InceptionV2_ava-b0c77c00.pth"),
    _nr("nima-koniq", HIGHER, 0, 1, "NIMA_koniq-250367ae.pth"),
    _nr("nima-spaq", HIGHER, 0, 1, "NIMA-spaq-46a7fcb7.pth"),
    _nr("nima-vgg16-ava", HIGHER, 0, 10, "NIMA_VGG16_ava-dc4e8265.pth"),
    _fr("pieapp", LOWER, 0, 5, "PieAPPv0.1-0937b014.pth", smallest=64),
    _nr("paq2piq", HIGHER, 0, 100, "P2P_RoIPoolModel-fit.10.bs.120-ca69882e.pth"),
    _nr("dbcnn", HIGHER, 0, 1, "DBCNN_KonIQ10k-2de81c0a.pth"),
    _nr("maniqa", HIGHER, 0, 1, "ckpt_koniq10k.pt"),
    _nr("maniqa-pipal", HIGHER, 0, 1, "MANIQA_PIPAL-ae6d356b.pth"),
    _nr("maniqa-kadid", HIGHER, 0, 1, "ckpt_kadid10k.pt"),
    _nr("clipiqa", HIGHER, 0, 1, CLIP_RN50, smallest=31, needs="openai-clip"),
    _nr("clipiqa+", HIGHER, 0, 1, CLIP_RN50, "CLIP-IQA%2B_learned_prompts-603f3273.pth", smallest=31, needs="openai-clip"),
    _nr("clipiqa+_vitL14_512", HIGHER, 0, 1, CLIP_L14, "CLIPIQA%2B_ViTL14_512-e66488f2.pth", needs="openai-clip"),
    _nr("clipiqa+_rn50_512", HIGHER, 0, 1, CLIP_RN50, "CLIPIQA%2B_RN50_512-89f5d940.pth", smallest=31, needs="openai-clip"),
    _nr("fgresq", HIGHER, 0, 1, HF_CLIP_B16, "FGResQ_Degradation.pth", "FGResQ.pth", differentiable=False),
    _fr("fgresq_pair", HIGHER, 0, 1, differentiable=False, refused="it ranks pairs and gives three numbers"),
    _nr("tres", HIGHER, 0, 100, "tres_koniq-f0502926.pth"),
    _nr("tres-flive", HIGHER, 0, 100, "tres_flive-09b0de5b.pth"),
    _nr("hyperiqa", HIGHER, 0, 1, "HyperIQA-resnet50-koniq10k-c96c41b1.pth"),
    _nr("metaiqa", HIGHER, 0, 1, "Metaiqa_livec.pth"),
    _nr("uranker", HIGHER, -1, 2, "URanker_ckpt-450eb36d.pth"),
    _nr("clipscore", HIGHER, 0, 2.5, OPENAI_B32, differentiable=False, refused="it compares an image with a caption"),
    _nr("entropy", HIGHER, 0, 8, differentiable=False),
    _nr("topiq_nr", HIGHER, 0, 1, "cfanet_nr_koniq_res50-9a73138b.pth"),
    _nr("topiq_nr-flive", HIGHER, 0, 1, "cfanet_nr_flive_res50-ded1c74e.pth"),
    _nr("topiq_nr-spaq", HIGHER, 0, 1, "cfanet_nr_spaq_res50-a7f799ac.pth"),
    _nr("topiq_nr-face", HIGHER, 0, 1, "topiq_nr_cgfiqa_res50-0a8b8e4f.pth", *FACE, differentiable=False, one_image=True, needs="one face"),
    _nr(
        "topiq_nr_swin-face",
        HIGHER,
        0,
        1,
        "topiq_nr_gfiqa_swin-7bb80a60.pth",
        *FACE,
        differentiable=False,
        one_image=True,
        needs="one face",
    ),
    _nr(
        "topiq_nr-face-v1", HIGHER, 0, 1, "topiq_nr_gfiqa_res50-d76bf1ae.pth", *FACE, differentiable=False, one_image=True, needs="one face"
    ),
    _fr("topiq_fr", HIGHER, 0, 1, "cfanet_fr_kadid_res50-2c4cc61d.pth"),
    _fr("topiq_fr-pipal", HIGHER, 0, 1, "cfanet_fr_pipal_res50-69bbe5ba.pth"),
    _nr("topiq_iaa", HIGHER, 1, 10, "cfanet_iaa_ava_swin-393b41b4.pth"),
    _nr("topiq_iaa_res50", HIGHER, 1, 10, "cfanet_iaa_ava_res50-3cd62bb3.pth"),
    _nr("laion_aes", HIGHER, 1, 10, OPENAI_L14, "sac%2Blogos%2Bava1-l14-linearMSE.pth", needs="openai-clip"),
    _nr("liqe", HIGHER, 1, 5, CLIP_B32, "liqe_koniq.pt", smallest=224, needs="openai-clip"),
    _nr("liqe_mix", HIGHER, 1, 5, CLIP_B32, "liqe_mix.pt", smallest=224, needs="openai-clip"),
    _fr("wadiqam_fr", HIGHER, -1, 0.1, "WaDIQaM-kadid-f7541ea5.pth", smallest=33),
    _nr("wadiqam_nr", HIGHER, -1, 0.1, "WaDIQaM-NR-koniq-aaffea29.pth", smallest=33),
    _nr("qalign", HIGHER, 1, 5, ONE_ALIGN, differentiable=False, one_image=True, needs="a GPU with 16 GB"),
    _nr("qalign_8bit", HIGHER, 1, 5, ONE_ALIGN, differentiable=False, one_image=True, needs="a GPU, bitsandbytes"),
    _nr("qalign_4bit", HIGHER, 1, 5, ONE_ALIGN, differentiable=False, one_image=True, needs="a GPU, bitsandbytes"),
    _nr("qrealign", HIGHER, 0, 1, QREALIGN_MINI, differentiable=False, needs="transformers >= 5"),
    _nr("qrealign-mini", HIGHER, 0, 1, QREALIGN_MINI, differentiable=False, needs="transformers >= 5"),
    _nr("qrealign-lite", HIGHER, 0, 1, _hf("q-future/Q-ReAlign-Lite-4B"), differentiable=False, needs="transformers >= 5, a GPU"),
    _nr("qrealign-pro", HIGHER, 0, 1, _hf("q-future/Q-ReAlign-Pro-9B"), differentiable=False, needs="transformers >= 5, a GPU"),
    _nr("compare2score", HIGHER, 0, 100, _hf("q-future/Compare2Score"), differentiable=False, one_image=True, needs="a GPU with 16 GB"),
    _nr("unique", HIGHER, -3, 3, "UNIQUE.pt"),
    _nr("arniqa", HIGHER, 0, 1, ARNIQA, "regressor_koniq10k.pth"),
    _nr("arniqa-live", HIGHER, 0, 1, ARNIQA, "regressor_live.pth"),
    _nr("arniqa-csiq", HIGHER, 0, 1, ARNIQA, "regressor_csiq.pth"),
    _nr("arniqa-tid", HIGHER, 0, 1, ARNIQA, "regressor_tid2013.pth"),
    _nr("arniqa-kadid", HIGHER, 0, 1, ARNIQA, "regressor_kadid10k.pth"),
    _nr("arniqa-clive", HIGHER, 0, 1, ARNIQA, "regressor_clive.pth"),
    _nr("arniqa-flive", HIGHER, 0, 1, ARNIQA, "regressor_flive.pth"),
    _nr("arniqa-spaq", HIGHER, 0, 1, ARNIQA, "regressor_spaq.pth"),
    _fr("msswd", LOWER, 0, 10, "msswd_weights.pth"),
    _fr("dmm", LOWER, 0, inf, VGG16, differentiable=False, smallest=128),  # a distance, although pyiqa says higher
    _nr("maclip", HIGHER, 0, 1, CLIP_RN50, one_image=True, needs="openai-clip, a GPU"),
    _nr("qualiclip", HIGHER, 0, 1, CLIP_RN50, "QualiCLIP.pth", smallest=31, needs="openai-clip"),
    _nr("qualiclip+", HIGHER, 0, 1, CLIP_RN50, "QualiCLIP.pth", "QualiCLIP%2B_koniq.pth", smallest=31, needs="openai-clip"),
    _nr("qualiclip+-clive", HIGHER, 0, 1, CLIP_RN50, "QualiCLIP.pth", "QualiCLIP%2B_clive.pth", smallest=31, needs="openai-clip"),
    _nr("qualiclip+-flive", HIGHER, 0, 1, CLIP_RN50, "QualiCLIP.pth", "QualiCLIP%2B_flive.pth", smallest=31, needs="openai-clip"),
    _nr("qualiclip+-spaq", HIGHER, 0, 1, CLIP_RN50, "QualiCLIP.pth", "QualiCLIP%2B_spaq.pth", smallest=31, needs="openai-clip"),
    _nr("fid", LOWER, 0, inf, differentiable=False, refused="it scores a set of images, not an image"),
    _nr("sfid", LOWER, 0, inf, differentiable=False, refused="it scores a set of images, not an image"),
    _nr("fid_dinov2", LOWER, 0, inf, differentiable=False, refused="it scores a set of images, not an image"),
    _nr("inception_score", HIGHER, 0, inf, differentiable=False, refused="it scores a set of images, not an image"),
    _nr("afine_nr", LOWER, -2, 2, "afine.pth", smallest=32),
    _fr("afine_fr", LOWER, -2, 2, "afine.pth", smallest=32),
    _fr("afine_all_scale", LOWER, 0, 100, "afine.pth", smallest=32),
    _fr("afine_all", LOWER, -inf, 2, "afine.pth", smallest=32),
)

CATALOG: dict[str, MetricInfo] = {info.name: info for info in ROWS}
