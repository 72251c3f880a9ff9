import os
import pickle

import pytest
import torch
from torch import nn

from sr_iqa.atomic import TEMPORARY_PREFIX, atomic_folder, atomic_write
from sr_iqa.checkpoints import CheckpointError, file_hash, load_into, load_weights, read_metadata, save_weights, weights_hash
from sr_iqa.modes import eval_mode


def small_net(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.Conv2d(width, 3, 3))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_safetensors_round_trip_keeps_values_and_metadata(tmp_path):
    state = small_net().state_dict()
    save_weights(tmp_path / "new" / "net.safetensors", state, {"step": "7"})
    assert same(load_weights(tmp_path / "new" / "net.safetensors"), state)
    assert read_metadata(tmp_path / "new" / "net.safetensors") == {"step": "7"}


def test_tensors_that_share_memory_can_be_saved(tmp_path):
    shared = torch.arange(6.0)
    save_weights(tmp_path / "a.safetensors", {"a": shared, "b": shared, "c": shared.reshape(2, 3).T}, {})
    loaded = load_weights(tmp_path / "a.safetensors")
    assert torch.equal(loaded["b"], shared) and torch.equal(loaded["c"], shared.reshape(2, 3).T)


def test_pth_prefers_ema_then_params_then_bare(tmp_path):
    one, two = {"w": torch.ones(2)}, {"w": torch.zeros(2)}
    torch.save({"params": one, "params_ema": two}, tmp_path / "both.pth")
    torch.save({"params": one}, tmp_path / "params.pth")
    torch.save(one, tmp_path / "bare.pth")
    assert same(load_weights(tmp_path / "both.pth"), {"w": torch.zeros(2)})
    assert same(load_weights(tmp_path / "both.pth", "params"), {"w": torch.ones(2)})
    assert same(load_weights(tmp_path / "params.pth"), {"w": torch.ones(2)})
    assert same(load_weights(tmp_path / "bare.pth"), {"w": torch.ones(2)})


def test_missing_key_and_missing_file_are_named(tmp_path):
    torch.save({"params": {"w": torch.ones(2)}}, tmp_path / "net_g_5.pth")
    with pytest.raises(CheckpointError, match=r"has no 'params_ema'; it holds params"):
        load_weights(tmp_path / "net_g_5.pth", "params_ema")
    with pytest.raises(CheckpointError, match=r"no such weight file. Did you mean net_g_5.pth\?"):
        load_weights(tmp_path / "net_g_50.pth")


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_and_unsafe_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"net{suffix}"
    path.write_bytes(b"\x10\x00not a checkpoint")
    with pytest.raises(CheckpointError, match=str(path)):
        load_weights(path)
    path.write_bytes(pickle.dumps({"params": Evil()}))
    with pytest.raises(CheckpointError, match=str(path)):
        load_weights(path)


def test_truncated_pth_is_refused(tmp_path):
    torch.save({"params": small_net().state_dict()}, tmp_path / "a.pth")
    content = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load_weights(tmp_path / "a.pth")


def test_misfit_names_shapes_missing_unknown_and_nearest(tmp_path):
    state = small_net(5).state_dict()
    state["1.weights"] = state.pop("1.weight")
    save_weights(tmp_path / "a.safetensors", state, {})
    with pytest.raises(CheckpointError) as error:
        load_into(small_net(4), tmp_path / "a.safetensors")
    message = str(error.value)
    assert "0.weight: file (5, 3, 3, 3), network (4, 3, 3, 3)" in message
    assert "1.weight (nearest there: 1.weights)" in message


def test_lenient_loading_takes_what_fits_and_refuses_nothing_at_all(tmp_path, caplog):
    source, target = small_net(4), small_net(4)
    save_weights(tmp_path / "part.safetensors", {"0.weight": source.state_dict()["0.weight"], "x": torch.ones(1)}, {})
    load_into(target, tmp_path / "part.safetensors", strict=False)
    assert torch.equal(target[0].weight, source[0].weight) and "1 of 2 tensors" in caplog.text
    save_weights(tmp_path / "none.safetensors", {"x": torch.ones(1)}, {})
    with pytest.raises(CheckpointError, match="do not fit"):
        load_into(target, tmp_path / "none.safetensors", strict=False)


def test_a_failed_write_leaves_the_previous_file_and_no_litter(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_a_user_error_and_leaves_the_previous_weights(tmp_path, monkeypatch):
    save_weights(tmp_path / "a.safetensors", {"w": torch.ones(1)}, {})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_weights(tmp_path / "a.safetensors", {"w": torch.zeros(1)}, {})
    assert torch.equal(load_weights(tmp_path / "a.safetensors")["w"], torch.ones(1))
    assert not list(tmp_path.glob(TEMPORARY_PREFIX + "*"))


def test_a_folder_is_replaced_whole(tmp_path):
    for text in ("one", "two"):
        with atomic_folder(tmp_path / "state") as folder:
            (folder / f"{text}.txt").write_text(text)
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["two.txt"]
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "state"):
        raise RuntimeError
    assert [p.name for p in tmp_path.rglob("*.txt")] == ["two.txt"] and len(list(tmp_path.iterdir())) == 1


def test_hashes_depend_on_content_only(tmp_path):
    state = small_net().state_dict()
    torch.save(state, tmp_path / "a.pth")
    save_weights(tmp_path / "a.safetensors", state, {})
    assert weights_hash(load_weights(tmp_path / "a.pth")) == weights_hash(load_weights(tmp_path / "a.safetensors"))
    assert weights_hash({**state, "0.bias": state["0.bias"] + 1}) != weights_hash(state)
    assert len(file_hash(tmp_path / "a.pth")) == 16


def test_eval_mode_restores_every_module():
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Dropout()))
    net[1][0].eval()
    with pytest.raises(RuntimeError), eval_mode(net):
        assert not any(m.training for m in net.modules())
        raise RuntimeError
    assert [m.training for m in net.modules()] == [True, True, True, False, True]
