"""Files in the shape of other projects' published training files become our options; what is lost is said."""

import pytest

from sr_iqa.config import OptionsError, load, options_to_yaml
from sr_iqa.config.degradation import DegradationOptions

TRAINING = """
train:
  ema_decay: 0.99
  optim_g: {type: Adam, lr: !!float 3e-4, weight_decay: 0, betas: [0.9, 0.99]}
  optim_d: {type: Adam, lr: !!float 3e-4}
  scheduler: {type: MultiStepLR, milestones: [10, 20], gamma: 0.5}
  total_iter: 30
  warmup_iter: -1
  pixel_opt: {type: L1Loss, loss_weight: !!float 1e-2, reduction: mean}
  gan_opt: {type: GANLoss, gan_type: vanilla, real_label_val: 1.0, fake_label_val: 0.0, loss_weight: !!float 5e-3}
  net_d_iters: 1
  net_d_init_iters: 0
val:
  val_freq: !!float 2e1
  save_img: true
  pbar: False
  metrics:
    psnr: {type: calculate_psnr, crop_border: 2, test_y_channel: false, better: higher}
    ssim: {type: calculate_ssim, crop_border: 2, test_y_channel: true}
    any: {type: calculate_niqe, crop_border: 2}
logger:
  print_freq: 10
  save_checkpoint_freq: !!float 2e1
  use_tb_logger: true
  wandb: {project: ~, resume_id: ~}
dist_params: {backend: nccl, port: 29500}
"""

PAIRED = (
    """
name: paired_x2
model_type: SRModel
scale: 2
num_gpu: auto
manual_seed: 1
datasets:
  train:
    name: Photos
    type: PairedImageDataset
    dataroot_gt: photos/hr
    dataroot_lq: photos/lr
    meta_info_file: photos/list.txt
    filename_tmpl: '{}'
    io_backend: {type: disk}
    gt_size: 64
    use_hflip: true
    use_rot: true
    use_shuffle: true
    num_worker_per_gpu: 2
    batch_size_per_gpu: 4
    dataset_enlarge_ratio: 100
    prefetch_mode: ~
  val: {name: Few, type: PairedImageDataset, dataroot_gt: few/hr, dataroot_lq: few/lr, io_backend: {type: disk}}
  val_2: {name: More, type: PairedImageDataset, dataroot_gt: more/hr, dataroot_lq: more/lr, io_backend: {type: disk}}
network_g: {type: MSRResNet, num_in_ch: 3, num_out_ch: 3, num_feat: 8, num_block: 2, upscale: 2}
path: {pretrain_network_g: ~, strict_load_g: true, resume_state: ~}
"""
    + TRAINING
)

HGGT = (
    """
name: sets_x4
model_type: Ours_PosGT_Model
scale: 4
num_gpu: auto
resize_prob: [0.2, 0.7, 0.1]
resize_range: [0.7, 1.3]
gaussian_noise_prob: 0.4
noise_range: [2, 11]
poisson_scale_range: [0.1, 0.7]
gray_noise_prob: 0.3
jpeg_range: [70, 90]
pre_pad: 0
tile_size: 64
tile_pad: 8
tile_process: False
gt_size: 128
queue_size: 40
datasets:
  train:
    name: Sets
    type: PosNegGTPosDataset
    dataroot_all_gt: sets/images
    dataroot_all_json: sets/labels
    blur_kernel_size_min: 2
    blur_kernel_size_max: 5
    kernel_list: ['iso', 'aniso']
    kernel_prob: [0.6, 0.4]
    sinc_prob: 0.02
    blur_sigma: [0.2, 1.1]
    betag_range: [0.2, 2.1]
    betap_range: [0.2, 1.1]
    gt_size: 128
    use_hflip: True
    use_rot: False
    num_worker_per_gpu: 2
    batch_size_per_gpu: 3
    dataset_enlarge_ratio: 1
    prefetch_mode: ~
  val: {name: Few, type: PairedImageDataset, dataroot_gt: few/hr, dataroot_lq: few/lr, io_backend: {type: disk}}
network_g: {type: RRDBPSNet, scale: 4, num_in_ch: 3, num_out_ch: 3, num_feat: 8, num_block: 1, num_grow_ch: 4}
network_d: {type: UNetDiscriminatorSN, num_in_ch: 3, num_feat: 8, skip_connection: True}
path: {pretrain_network_g: weights.pth, param_key_g: params_ema, strict_load_g: true, resume_state: ~}
"""
    + TRAINING
)

SECOND_STAGE = {
    "queue_size: 40": """
second_blur_prob: 0.7
resize_prob2: [0.3, 0.5, 0.2]
resize_range2: [0.6, 1.1]
gaussian_noise_prob2: 0.6
noise_range2: [0, 5]
poisson_scale_range2: [0, 0.4]
gray_noise_prob2: 0.1
jpeg_range2: [80, 92]
l1_gt_usm: True
gan_gt_usm: False
queue_size: 40""",
    "    gt_size: 128": """
    blur_kernel_size_min2: 1
    blur_kernel_size_max2: 2
    kernel_list2: ['iso', 'plateau_iso']
    kernel_prob2: [0.8, 0.2]
    sinc_prob2: 0.03
    blur_sigma2: [0.1, 0.5]
    betag_range2: [0.3, 2.0]
    betap_range2: [0.3, 1.0]
    final_sinc_prob: 0.2
    gt_size: 128""",
}


def loaded(tmp_path, text, overrides=()):
    path = tmp_path / "theirs.yml"
    path.write_text(text.lstrip("\n"))
    return load(path, overrides)


def notes(result):
    """Key -> note, without its place."""
    return {line.split(": ")[1]: line.split(": ", 2)[2] for line in result.notes}


def refusal(tmp_path, text):
    with pytest.raises(OptionsError) as caught:
        loaded(tmp_path, text)
    return str(caught.value)


def test_basicsr_file(tmp_path):
    result = loaded(tmp_path, PAIRED)
    options = result.options
    train = options.datasets.train
    assert (train.type, str(train.dataroot_lq), train.sampling.strategy) == ("paired", "photos/lr", "original")
    assert options.datasets.val.type == "paired"
    assert options.val.metrics == ("psnr", "ssim", "niqe")
    assert (options.val.crop_border, options.val.val_freq, options.val.save_img) == (2, 20, True)
    assert options.train.optim_g.arguments == {"lr": 3e-4, "weight_decay": 0, "betas": [0.9, 0.99]}
    assert options.train.scheduler.milestones == (10, 20)
    assert options.logger.save_checkpoint_freq == 20


def test_everything_ignored_is_noted_with_its_line_and_nothing_else(tmp_path):
    result = loaded(tmp_path, PAIRED)
    assert set(notes(result)) == {
        "model_type",
        "num_gpu",
        "dist_params",
        "datasets.train.meta_info_file",
        "datasets.train.dataset_enlarge_ratio",
        "datasets.val_2",
    }
    assert f"{tmp_path}/theirs.yml:4: num_gpu: ignored, devices and processes are set by `accelerate launch`" in result.notes


def test_hggt_file(tmp_path):
    result = loaded(tmp_path, HGGT)
    options = result.options
    train = options.datasets.train
    assert (train.type, str(train.dataroot_gt), str(train.dataroot_labels)) == ("multi_gt", "sets/images", "sets/labels")
    assert train.sampling.strategy == "uniform_positive"
    assert (train.gt_size, options.val.tile) == (128, 0)
    assert train.degradation == DegradationOptions.model_validate(
        {
            "preset": "hggt",
            "first": {
                "blur": {
                    "prob": 1.0,
                    "kernel_size_range": (5, 11),
                    "kernels": {"iso": 0.6, "aniso": 0.4},
                    "sinc_prob": 0.02,
                    "sigma_range": (0.2, 1.1),
                    "betag_range": (0.2, 2.1),
                    "betap_range": (0.2, 1.1),
                },
                "resize": {"prob": (0.2, 0.7, 0.1), "scale_range": (0.7, 1.3)},
                "noise": {"gaussian_prob": 0.4, "sigma_range": (2, 11), "poisson_scale_range": (0.1, 0.7), "gray_prob": 0.3},
                "jpeg_range": (70, 90),
            },
            "second": None,
        }
    )
    assert set(notes(result)) == {"model_type", "num_gpu", "dist_params", "queue_size", "datasets.train.dataset_enlarge_ratio"}


def test_positions_follow_moved_keys(tmp_path):
    result = loaded(tmp_path, HGGT)
    where = result.positions[("datasets", "train", "degradation", "first", "jpeg_range")]
    assert where.endswith("theirs.yml:11")
    broken = HGGT.replace("jpeg_range: [70, 90]", "jpeg_range: [70, 900]")
    assert "theirs.yml:11: datasets.train.degradation.first.jpeg_range.1: expected less than or equal to 100, got 900" in refusal(
        tmp_path, broken
    )


@pytest.mark.parametrize(
    ("name", "strategy"),
    [("PosNegGTOriDataset", "original"), ("PosNegGTPosDataset", "uniform_positive"), ("PosNegGTPosNeg_Dataset", "uniform_positive")],
)
def test_hggt_data_set_names_decide_the_strategy(tmp_path, name, strategy):
    assert loaded(tmp_path, HGGT.replace("PosNegGTPosDataset", name)).options.datasets.train.sampling.strategy == strategy


def test_hggt_original_loss_block_and_negative_loss(tmp_path):
    text = HGGT.replace("pixel_opt:", "pixel_opt_o:").replace("PosNegGTPosDataset", "PosNegGTPosNeg_Dataset")
    text = text.replace("  net_d_iters: 1", "  neg_opt: {type: L1Loss, loss_weight: !!float 3e2, reduction: mean}\n  net_d_iters: 1")
    result = loaded(tmp_path, text)
    assert result.options.train.pixel_opt.type == "L1Loss"
    assert result.options.train.neg_opt.type == "NegativeLoss"
    assert result.options.train.neg_opt.arguments == {"loss_weight": 300.0}
    assert "HGGT trains on them with the original GT" in notes(result)["datasets.train.type"]


def test_two_stages(tmp_path):
    text = HGGT.replace("PosNegGTPosDataset", "TwoStageDegradation_PosNegGTPos_Dataset")
    for old, new in SECOND_STAGE.items():
        text = text.replace(old, new, 1)
    result = loaded(tmp_path, text)
    degradation = result.options.datasets.train.degradation
    assert degradation.preset == "realesrgan"
    assert degradation.second.blur.prob == 0.7
    assert degradation.second.blur.kernel_size_range == (3, 5)
    assert degradation.second.blur.kernels == {"iso": 0.8, "plateau_iso": 0.2}
    assert degradation.second.jpeg_range == (80, 92)
    assert degradation.second.noise.sigma_range == (0, 5)
    assert (degradation.final.sinc_prob, degradation.final.sinc_kernel_size_range) == (0.2, (3, 5))
    assert degradation.first.jpeg_range == (70, 90)
    assert "never sharpened" in notes(result)["l1_gt_usm"]
    assert "gan_gt_usm" not in notes(result)


def test_real_esrgan_kernel_size_is_the_padding_not_the_range(tmp_path):
    text = HGGT.replace("PosNegGTPosDataset", "RealESRGANDataset").replace("dataroot_all_gt", "dataroot_gt")
    text = text.replace("    dataroot_all_json: sets/labels\n", "").replace("    blur_kernel_size_max: 5\n", "    final_sinc_prob: 0.8\n")
    data = loaded(tmp_path, text.replace("blur_kernel_size_min: 2", "blur_kernel_size: 21")).options.datasets.train
    assert data.type == "single_gt"
    assert data.degradation.first.blur.kernel_size_range == (7, 21)


def test_crop_size_at_the_top_counts(tmp_path):
    result = loaded(tmp_path, HGGT.replace("    gt_size: 128", "    gt_size: 400"))
    assert result.options.datasets.train.gt_size == 128
    assert notes(result)["datasets.train.gt_size"].startswith("ignored, gt_size at the top of the file counts")


def test_tiles(tmp_path):
    assert loaded(tmp_path, HGGT.replace("tile_process: False", "tile_process: True")).options.val.tile == 64


def test_validation_without_gt_is_left_out(tmp_path):
    text = PAIRED.replace("{name: Few, type: PairedImageDataset, dataroot_gt: few/hr, ", "{name: Few, type: SingleImageDataset, ")
    result = loaded(tmp_path, text)
    assert result.options.datasets.val is None
    assert "sr-iqa infer" in notes(result)["datasets.val"]


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        ("io_backend: {type: disk}\n    gt", "io_backend: {type: lmdb}\n    gt", "datasets.train.io_backend", "LMDB folders are not read"),
        ("filename_tmpl: '{}'", "filename_tmpl: '{}x2'", "datasets.train.filename_tmpl", "named like its GT"),
        ("use_shuffle: true", "use_shuffle: false", "datasets.train.use_shuffle", "always shuffled"),
        ("prefetch_mode: ~", "prefetch_mode: cuda", "datasets.train.prefetch_mode", "own way"),
        ("{project: ~,", "{project: mine,", "logger.wandb", "TensorBoard"),
        ("resume_state: ~", "resume_state: a.state", "path.resume_state", "resumes by itself"),
        ("SRModel", "ESRGANModel", "model_type", "relativistic"),
        ("crop_border: 2, test_y_channel: true", "crop_border: 3, test_y_channel: true", "val.metrics", "cropped by 2"),
        ("{type: calculate_niqe, crop_border: 2}", "{type: calculate_niqe, convert_to: gray}", "val.metrics", "convert_to ignored"),
    ],
)
def test_what_is_lost_is_said(tmp_path, old, new, key, words):
    assert old in PAIRED
    assert words in notes(loaded(tmp_path, PAIRED.replace(old, new)))[key]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("  pixel_opt:", "  ldl_opt: {type: L1Loss}\n  pixel_opt:", "train.ldl_opt: LDL's artifact loss has no counterpart"),
        ("  pixel_opt:", "  adatarget_opt: {type: A}\n  optim_loc: {type: Adam}\n  pixel_opt:", "train.adatarget_opt: AdaTarget's loss"),
        ("use_rot: true", "color: y", "datasets.train.color: training on the luminance channel"),
        ("SRModel", "VideoRecurrentModel", "model_type: VideoRecurrentModel is no trainer of single-image SR networks"),
        ("type: PairedImageDataset", "type: REDSDataset", "datasets.train.type: expected 'multi_gt', 'paired' or 'single_gt'"),
    ],
)
def test_what_cannot_be_done_without_is_refused_by_name(tmp_path, old, new, line):
    found = refusal(tmp_path, PAIRED.replace(old, new, 1))
    assert line in found
    assert len(found.splitlines()) == 1


def test_our_names_win_and_overrides_reach_both_vocabularies(tmp_path):
    overrides = ["datasets.train.dataroot_gt=mine", "datasets.train.sampling.strategy=amo", "jpeg_range=[50, 60]"]
    result = loaded(tmp_path, HGGT, overrides)
    data = result.options.datasets.train
    assert (str(data.dataroot_gt), data.sampling.strategy, data.degradation.first.jpeg_range) == ("mine", "amo", (50, 60))
    assert notes(result)["datasets.train.dataroot_all_gt"].startswith("ignored, datasets.train.dataroot_gt is given (--set")
    preset = loaded(tmp_path, HGGT, ["datasets.train.degradation.preset=bicubic"])
    assert preset.options.datasets.train.degradation == DegradationOptions(preset="bicubic")
    assert "preset is given" in notes(preset)["jpeg_range"]


@pytest.mark.parametrize("text", [PAIRED, HGGT])
def test_the_translation_is_complete_and_our_own_files_need_none(tmp_path, text):
    result = loaded(tmp_path, text)
    again = loaded(tmp_path, options_to_yaml(result.options))
    assert again.options == result.options
    assert again.notes == ()


BROKEN = """
datasets: 5
datasets: [1]
datasets: {train: x}
datasets: {train: {sampling: 3, type: PosNegGTPosDataset}}
val: {metrics: 5}
train: []
kernel_list: 3
scale: {}
model_type: [x]
val: {metrics: {a: {crop_border: [1]}, b: {crop_border: 2}}}
datasets: {train: {degradation: {preset: {}}}}
"""


@pytest.mark.parametrize("text", BROKEN.split("\n")[1:-1])
def test_broken_shapes_are_reported_not_crashed_on(tmp_path, text):
    assert refusal(tmp_path, f"{text}\nnum_gpu: 1\njpeg_range: 4\ngt_size: [1]\ntile_process: 7\n")
