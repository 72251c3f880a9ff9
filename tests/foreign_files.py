"""Training files in the layouts of other projects, small enough to read."""

BASICSR_SWINIR = """\
name: swinir_x4_psnr
model_type: SwinIRModel
scale: 4
num_gpu: auto
manual_seed: 7
datasets:
  train:
    name: DIV2K
    type: PairedImageDataset
    dataroot_gt: data/hr
    dataroot_lq: data/lr
    meta_info_file: data/meta.txt
    filename_tmpl: '{}'
    io_backend:
      type: disk
    gt_size: 192
    use_hflip: true
    use_rot: true
    use_shuffle: true
    num_worker_per_gpu: 6
    batch_size_per_gpu: 4
    dataset_enlarge_ratio: 1
    prefetch_mode: ~
  val:
    name: Set5
    type: PairedImageDataset
    dataroot_gt: data/val_hr
    dataroot_lq: data/val_lr
    io_backend:
      type: disk
network_g:
  type: SwinIR
  upscale: 4
  in_chans: 3
  img_size: 48
  window_size: 8
  img_range: 1.
  depths: [6, 6, 6, 6, 6, 6]
  embed_dim: 180
  num_heads: [6, 6, 6, 6, 6, 6]
  mlp_ratio: 2
  upsampler: 'pixelshuffle'
  resi_connection: '1conv'
path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~
train:
  ema_decay: 0.999
  optim_g:
    type: Adam
    lr: !!float 2e-4
    weight_decay: 0
    betas: [0.9, 0.99]
  scheduler:
    type: MultiStepLR
    milestones: [250000, 400000]
    gamma: 0.5
  total_iter: 500000
  warmup_iter: -1
  pixel_opt:
    type: L1Loss
    loss_weight: 1.0
    reduction: mean
val:
  val_freq: !!float 5e3
  save_img: false
  metrics:
    psnr:
      type: calculate_psnr
      crop_border: 4
      test_y_channel: true
logger:
  print_freq: 100
  save_checkpoint_freq: !!float 2e3
  use_tb_logger: true
  wandb:
    project: ~
    resume_id: ~
dist_params:
  backend: nccl
  port: 29500
"""

BASICSR_ESRGAN = """\
name: esrgan_x4
model_type: ESRGANModel
scale: 4
num_gpu: 1
manual_seed: 0
datasets:
  train: {name: DIV2K, type: PairedImageDataset, dataroot_gt: data/hr, dataroot_lq: data/lr, io_backend: {type: lmdb},
          gt_size: 128, use_hflip: true, use_rot: true, num_worker_per_gpu: 6, batch_size_per_gpu: 16}
network_g: {type: RRDBNet, num_in_ch: 3, num_out_ch: 3, num_feat: 64, num_block: 23}
network_d: {type: VGGStyleDiscriminator, num_in_ch: 3, num_feat: 64}
path: {pretrain_network_g: psnr.pth, strict_load_g: true, resume_state: ~}
train:
  ema_decay: 0.999
  optim_g: {type: Adam, lr: !!float 1e-4, weight_decay: 0, betas: [0.9, 0.99]}
  optim_d: {type: Adam, lr: !!float 1e-4, weight_decay: 0, betas: [0.9, 0.99]}
  scheduler: {type: MultiStepLR, milestones: [50000, 100000], gamma: 0.5}
  total_iter: 400000
  pixel_opt: {type: L1Loss, loss_weight: !!float 1e-2, reduction: mean}
  perceptual_opt: {type: PerceptualLoss, layer_weights: {conv5_4: 1}, vgg_type: vgg19, use_input_norm: true, perceptual_weight: 1.0,
                   style_weight: 0, range_norm: false, criterion: l1}
  gan_opt: {type: GANLoss, gan_type: vanilla, real_label_val: 1.0, fake_label_val: 0.0, loss_weight: !!float 5e-3}
  ldl_opt: {type: L1Loss, loss_weight: 1.0, reduction: mean}
  net_d_iters: 1
  net_d_init_iters: 0
logger: {print_freq: 100, save_checkpoint_freq: !!float 5e3, use_tb_logger: true}
"""

REALESRGAN = """\
name: realesrgan_x4
model_type: RealESRGANModel
scale: 4
num_gpu: auto
manual_seed: 0
l1_gt_usm: True
percep_gt_usm: True
gan_gt_usm: False
resize_prob: [0.2, 0.7, 0.1]
resize_range: [0.2, 1.4]
gaussian_noise_prob: 0.5
noise_range: [1, 30]
poisson_scale_range: [0.05, 3]
gray_noise_prob: 0.4
jpeg_range: [30, 95]
second_blur_prob: 0.7
resize_prob2: [0.3, 0.4, 0.3]
resize_range2: [0.3, 1.2]
gaussian_noise_prob2: 0.5
noise_range2: [1, 25]
poisson_scale_range2: [0.05, 2.5]
gray_noise_prob2: 0.4
jpeg_range2: [40, 95]
gt_size: 256
queue_size: 180
datasets:
  train:
    name: DF2K+OST
    type: RealESRGANDataset
    dataroot_gt: data/hr
    meta_info: data/meta.txt
    io_backend:
      type: disk
    blur_kernel_size: 21
    kernel_list: ['iso', 'aniso']
    kernel_prob: [0.6, 0.4]
    sinc_prob: 0.1
    blur_sigma: [0.2, 3]
    betag_range: [0.5, 4]
    betap_range: [1, 2]
    blur_kernel_size2: 21
    kernel_list2: ['iso', 'aniso']
    kernel_prob2: [0.7, 0.3]
    sinc_prob2: 0.1
    blur_sigma2: [0.2, 1.5]
    betag_range2: [0.5, 4]
    betap_range2: [1, 2]
    final_sinc_prob: 0.8
    gt_size: 256
    use_hflip: True
    use_rot: False
    use_shuffle: true
    num_worker_per_gpu: 5
    batch_size_per_gpu: 12
    dataset_enlarge_ratio: 1
    prefetch_mode: ~
network_g:
  type: RRDBNet
  num_in_ch: 3
  num_out_ch: 3
  num_feat: 64
  num_block: 23
  num_grow_ch: 32
network_d:
  type: UNetDiscriminatorSN
  num_in_ch: 3
  num_feat: 64
  skip_connection: True
path:
  pretrain_network_g: RealESRNet_x4plus.pth
  param_key_g: params_ema
  strict_load_g: true
  resume_state: ~
train:
  ema_decay: 0.999
  optim_g: {type: Adam, lr: !!float 1e-4, weight_decay: 0, betas: [0.9, 0.99]}
  optim_d: {type: Adam, lr: !!float 1e-4, weight_decay: 0, betas: [0.9, 0.99]}
  scheduler: {type: MultiStepLR, milestones: [400000], gamma: 0.5}
  total_iter: 400000
  warmup_iter: -1
  pixel_opt: {type: L1Loss, loss_weight: 1.0, reduction: mean}
  gan_opt: {type: GANLoss, gan_type: vanilla, real_label_val: 1.0, fake_label_val: 0.0, loss_weight: !!float 1e-1}
  net_d_iters: 1
  net_d_init_iters: 0
logger: {print_freq: 100, save_checkpoint_freq: !!float 5e3, use_tb_logger: true, wandb: {project: ~, resume_id: ~}}
dist_params: {backend: nccl, port: 29500}
"""

HGGT = """\
name: RRDBGAN_PosNegGT_x4
model_type: Ours_PosNegGT_Model
scale: 4
num_gpu: auto
manual_seed: 0
pre_pad: 0
tile_size: 512
tile_pad: 10
tile_process: False
resize_prob: [0.1, 0.85, 0.05]
resize_range: [0.8, 1.2]
gaussian_noise_prob: 0.5
noise_range: [1, 12]
poisson_scale_range: [0.05, 0.8]
gray_noise_prob: 0.2
jpeg_range: [75, 95]
gt_size: 256
queue_size: 80
datasets:
  train:
    name: PosNegGT
    type: PosNegGTPosNeg_Dataset
    dataroot_all_gt: sets/images
    dataroot_all_json: sets/labels
    blur_kernel_size_min: 1
    blur_kernel_size_max: 4
    kernel_list: ['iso', 'aniso']
    kernel_prob: [0.7, 0.3]
    sinc_prob: 0.02
    blur_sigma: [0.1, 1.0]
    betag_range: [0.1, 2.0]
    betap_range: [0.1, 1.0]
    gt_size: 256
    use_hflip: True
    use_rot: False
    num_worker_per_gpu: 8
    batch_size_per_gpu: 8
    dataset_enlarge_ratio: 1
    prefetch_mode: ~
network_g: {type: RRDBPSNet, scale: 4, num_in_ch: 3, num_out_ch: 3, num_feat: 64, num_block: 23, num_grow_ch: 32}
network_d: {type: UNetDiscriminatorSN, num_in_ch: 3, num_feat: 64, skip_connection: True}
path: {pretrain_network_g: psnr.pth, param_key_g: params_ema, strict_load_g: true, resume_state: ~}
train:
  ema_decay: 0.999
  optim_g: {type: Adam, lr: !!float 1e-4, weight_decay: 0, betas: [0.9, 0.99]}
  optim_d: {type: Adam, lr: !!float 1e-4, weight_decay: 0, betas: [0.9, 0.99]}
  scheduler: {type: MultiStepLR, milestones: [200000], gamma: 0.5}
  total_iter: 300000
  warmup_iter: -1
  pixel_opt_o: {type: L1Loss, loss_weight: 1.0, reduction: mean}
  neg_opt: {type: L1Loss, loss_weight: !!float 3e2, reduction: mean}
  gan_opt: {type: GANLoss, gan_type: vanilla, real_label_val: 1.0, fake_label_val: 0.0, loss_weight: !!float 1e-1}
  net_d_iters: 1
  net_d_init_iters: 0
logger: {print_freq: 100, save_checkpoint_freq: !!float 5e4, use_tb_logger: true}
"""

_TRAINNER_TOP = """\
name: 4x_example
scale: 4  # 1, 2, 3, 4, 8
use_amp: true
amp_bf16: {bf16}
use_channels_last: true
fast_matmul: false
use_compile: false
compile_mode: default
num_gpu: auto
"""

_TRAINNER_REST = """\
path:
  pretrain_network_g: ~
  param_key_g: ~
  strict_load_g: true
  resume_state: ~
train:
  ema_decay: 0.999
  ema_power: 0.75
  grad_clip: false
  grad_clip_max_norm: 100
  optim_g:
    type: AdamW
    lr: !!float 2e-4
    weight_decay: 0
    betas: [0.9, 0.99]
  scheduler:
    type: MultiStepLR
    milestones: [125000, 200000]
    gamma: 0.5
  total_iter: 250000
  warmup_iter: -1
"""

_TRAINNER_LOGGER = """\
logger:
  print_freq: 100
  save_checkpoint_freq: 1000
  save_checkpoint_format: safetensors
  use_tb_logger: true
"""

TRAINNER_HAT = (
    _TRAINNER_TOP.format(bf16="true")
    + """\
datasets:
  train:
    name: Train Dataset
    type: pairedimagedataset
    dataroot_gt: [
      data/hr,
      data/hr2
    ]
    dataroot_lq: [
      data/lr,
      data/lr2
    ]
    lq_size: 64
    use_hflip: true
    use_rot: true
    num_worker_per_gpu: 8
    batch_size_per_gpu: 8
    accum_iter: 2
  val:
    name: Val Dataset
    type: pairedimagedataset
    dataroot_gt: [data/val_hr]
    dataroot_lq: [data/val_lr]
network_g:
  type: hat_l
  use_checkpoint: true
"""
    + _TRAINNER_REST
    + """\
  losses:
    - type: charbonnierloss
      loss_weight: 1.0
val:
  val_enabled: true
  val_freq: 1000
  save_img: true
  tile_size: 200
  tile_overlap: 8
  metrics_enabled: true
  metrics:
    psnr:
      type: calculate_psnr
      crop_border: 4
      test_y_channel: false
    topiq:
      type: calculate_topiq
"""
    + _TRAINNER_LOGGER
)

TRAINNER_OTF_GAN = (
    _TRAINNER_TOP.format(bf16="false")
    + """\
high_order_degradation: true
high_order_degradations_debug: false
high_order_degradations_debug_limit: 100
lq_usm: false
lq_usm_radius_range: [1, 25]
thicklines_prob: 0.1
blur_prob: 0.3
resize_prob: [0.2, 0.7, 0.1]
resize_mode_list: ['bilinear', 'bicubic', 'nearest-exact', 'lanczos']
resize_mode_prob: [0.25, 0.25, 0.25, 0.25]
resize_range: [0.4, 1.5]
gaussian_noise_prob: 0.4
noise_range: [0, 5]
poisson_scale_range: [0, 0.5]
gray_noise_prob: 0.2
jpeg_prob: 0.5
jpeg_range: [75, 95]
blur_prob2: 0.0
resize_prob2: [0.3, 0.4, 0.3]
resize_mode_list2: ['area']
resize_mode_prob2: [1]
resize_range2: [0.6, 1.2]
gaussian_noise_prob2: 0
noise_range2: [0, 0]
poisson_scale_range2: [0, 0]
gray_noise_prob2: 0.0
jpeg_prob2: 0
jpeg_range2: [75, 95]
resize_mode_list3: ['bilinear', 'bicubic']
resize_mode_prob3: [0.5, 0.5]
queue_size: 120
datasets:
  train:
    name: Train Dataset
    type: realesrgandataset
    dataroot_gt: [data/hr]
    blur_kernel_size: 12
    kernel_list: ['iso', 'aniso']
    kernel_prob: [0.6, 0.4]
    kernel_range: [5, 17]
    sinc_prob: 0.0
    blur_sigma: [0.2, 2]
    betag_range: [0.5, 4]
    betap_range: [1, 2]
    blur_kernel_size2: 12
    kernel_list2: ['iso', 'aniso']
    kernel_prob2: [0.6, 0.4]
    kernel_range2: [5, 17]
    sinc_prob2: 0.0
    blur_sigma2: [0.2, 1]
    betag_range2: [0.5, 4]
    betap_range2: [1, 2]
    final_sinc_prob: 0.0
    final_kernel_range: [5, 17]
    lq_size: 64
    use_hflip: true
    use_rot: true
    num_worker_per_gpu: 8
    batch_size_per_gpu: 8
    accum_iter: 1
  val:
    name: Val Dataset
    type: pairedimagedataset
    dataroot_gt: [data/val_hr, data/more]
    dataroot_lq: [data/val_lr, data/more_lr]
network_g:
  type: superultracompact
network_d:
  type: dunet
"""
    + _TRAINNER_REST
    + """\
  optim_d:
    type: AdamW
    lr: !!float 1e-4
    weight_decay: 0
    betas: [0.9, 0.99]
  losses:
    - type: mssimloss
      loss_weight: 0.5
    - type: l1loss
      loss_weight: 0.3
    - type: perceptualloss
      criterion: charbonnier
      loss_weight: 0.01
    - type: hsluvloss
      criterion: charbonnier
      loss_weight: 1.0
    - type: ganloss
      gan_type: vanilla
      loss_weight: 0.1
    - type: ldlloss
      loss_weight: 0
  use_moa: false
  moa_augs: ['none', 'mixup']
  moa_probs: [0.4, 0.6]
  moa_debug: false
  moa_debug_limit: 100
val:
  val_enabled: false
  val_freq: 1000
  save_img: true
"""
    + _TRAINNER_LOGGER
)

_NEOSR_TRAIN = """\
[train.optim_g]
type = "adan_sf"
lr = 1e-3
betas = [ 0.98, 0.92, 0.99 ]
weight_decay = 0.01
schedule_free = true
warmup_steps = 1600

[train.optim_d]
type = "AdamW"
lr = 1e-4
betas = [ 0.9, 0.99 ]
warmup_steps = 600

#  losses
[train.mssim_opt]
type = "mssim_loss"
loss_weight = 1.0

[train.consistency_opt]
type = "consistency_loss"
loss_weight = 1.0

[train.gan_opt]
type = "gan_loss"
gan_type = "bce"
loss_weight = 0.3

[logger]
total_iter = 1000000
save_checkpoint_freq = 1000
use_tb_logger = true
#save_tb_img = true
print_freq = 50
"""

NEOSR_SWINIR = """\
name = "train_swinir"
model_type = "image"
scale = 4
use_amp = false
fast_matmul = true
compile = true
manual_seed = 1024

[datasets.train]
type = "paired"
dataroot_gt = 'C:\\datasets\\gt\\'
dataroot_lq = 'C:\\datasets\\lq\\'
patch_size = 64
batch_size = 8
accumulate = 4

[datasets.val]
name = "val"
type = "paired"
dataroot_gt = 'C:\\datasets\\val\\gt\\'
dataroot_lq = 'C:\\datasets\\val\\lq\\'
[val]
val_freq = 1000
tile = 200
[val.metrics.psnr]
type = "calculate_psnr"
[val.metrics.dists]
type = "calculate_dists"
better = "lower"

[path]

[network_g]
type = "swinir_medium"
#flash_attn = true

[train]
ema = 0.999
grad_clip = false

[train.optim_g]
type = "adamw"
lr = 5e-4

[train.scheduler]
type = "multisteplr"
milestones = [
  60000,
  120000,
]
gamma = 0.5

[train.pixel_opt]
type = "l1_loss"

[train.dists_opt]
type = "dists_loss"
loss_weight = 0.5

[logger]
total_iter = 200000
save_checkpoint_freq = 1000
use_tb_logger = true
"""

NEOSR_OTF_GAN = (
    """\
name = "train_compact_otf"
model_type = "otf"
scale = 4
use_amp = true
bfloat16 = true
fast_matmul = true

[datasets.train]
type = "otf"
dataroot_gt = 'data/hr'
patch_size = 32
batch_size = 8
augmentation = [ "none", "mixup" ]
aug_prob = [ 0.5, 0.5 ]

[degradations]
resize_prob = [ 0.3, 0.4, 0.3 ]
resize_range = [ 0.5, 1.5 ]
gaussian_noise_prob = 0.2
noise_range = [ 0, 2 ]
poisson_scale_range = [ 0.05, 0.25 ]
gray_noise_prob = 0.1
jpeg_range = [ 40, 95 ]
second_blur_prob = 0.4
resize_prob2 = [ 0.3, 0.4, 0.3 ]
resize_range2 = [ 0.3, 1.5 ]
gaussian_noise_prob2 = 0.2
noise_range2 = [ 0, 2 ]
poisson_scale_range2 = [ 0.05, 0.1 ]
gray_noise_prob2 = 0.1
jpeg_range2 = [ 35, 95 ]

blur_kernel_size = 7
kernel_list = [
  "iso",
  "aniso",
]
kernel_prob = [ 0.6, 0.4 ]
sinc_prob = 0.1
blur_sigma = [ 0.2, 3 ]
betag_range = [ 0.5, 4 ]
betap_range = [ 1, 2 ]
final_sinc_prob = 0.8

[network_g]
type = "compact"

[network_d]
type = "unet"

[train]
ema = 0.999
wavelet_guided = true
wavelet_init = 80000

"""
    + _NEOSR_TRAIN
)

FILES = {
    "basicsr_swinir.yml": ("basicsr", BASICSR_SWINIR),
    "basicsr_esrgan.yml": ("basicsr", BASICSR_ESRGAN),
    "realesrgan.yml": ("realesrgan", REALESRGAN),
    "hggt.yml": ("hggt", HGGT),
    "trainner_hat.yml": ("trainner", TRAINNER_HAT),
    "trainner_otf_gan.yml": ("trainner", TRAINNER_OTF_GAN),
    "neosr_swinir.toml": ("neosr", NEOSR_SWINIR),
    "neosr_otf_gan.toml": ("neosr", NEOSR_OTF_GAN),
}
"""Name -> (project, text)."""
