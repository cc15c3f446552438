"""Models by name; clear words where one is missing, damaged or unknown; shapes in their own dtype."""

import shutil

import pytest
import torch

from helpers import models
from helpers.errors import CourseError
from helpers.models import loading, shapes
from helpers.models.loading import load
from helpers.models.shapes import SHAPES, shape_only
from helpers.text_to_sql.tokenizer import build_tokenizer, training_mix
from tests.tiny_models import tiny

PUBLISHED = {"llama-1b": 1_235_814_400, "tinyllama-1.1b": 1_100_048_384, "llama-7b": 6_738_415_616,
             "llama-8b": 8_030_261_248, "mistral-7b": 7_241_732_096, "qwen2-0.5b": 494_032_768}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "FOLDER", tmp_path)
    examples = training_mix(40)
    tiny().float().save_pretrained(tmp_path / "base")
    build_tokenizer(examples, [e.answer for e in examples], vocabulary=600).save_pretrained(tmp_path / "base")
    return tmp_path


def test_a_model_comes_by_name_and_by_folder_in_the_dtype_asked_for(folder):
    for name in ("base", folder / "base"):
        model, tokenizer = load(name, "bfloat16")
        assert model.dtype == torch.bfloat16 and not model.training and len(tokenizer) > 100
    assert list(models.shipped()) == ["base"]


def test_a_missing_model_says_how_to_make_it(folder):
    with pytest.raises(CourseError, match=r"helpers\.training\.distil_draft --start_from build/draft"):
        load("draft")


def test_an_unknown_name_lists_the_known_ones(folder):
    with pytest.raises(CourseError, match="base, draft"):
        load("bas")


def test_a_damaged_model_says_how_to_get_it_back(folder):
    weights = folder / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(CourseError, match="git checkout"):
        load("base")


def test_a_pickle_is_never_read(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("own")
    shutil.copytree(folder / "base", place, dirs_exist_ok=True)
    (place / "model.safetensors").unlink()
    torch.save(tiny().state_dict(), place / "pytorch_model.bin")
    with pytest.raises(CourseError, match=r"it needs config\.json, a tokenizer and safetensors"):
        load(place)


def test_a_hub_model_without_network_says_so():
    with pytest.raises(CourseError, match="can't be had from the Hub"):
        load("nobody/nothing")


def test_a_dtype_that_is_none(folder):
    with pytest.raises(CourseError, match="float32, bfloat16, float16"):
        load("base", "int3")


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "llama-tiny"])  # which promises no size
def test_shapes_have_the_published_size(name):
    model = shape_only(name, "bfloat16", device="meta")
    count = sum(p.numel() for p in model.parameters())
    if name in PUBLISHED:
        assert count == PUBLISHED[name]
    else:
        assert count == pytest.approx(float(name.removeprefix("llama-").removesuffix("m")) * 1e6, rel=0.06)


def test_random_weights_are_made_in_their_own_dtype_and_depend_on_the_seed(monkeypatch):
    monkeypatch.setitem(SHAPES, "tiny", shapes._llama(32, 64, 2, 4, 2, vocab_size=50))
    one, same, other = (shape_only("tiny", "bfloat16", seed=s) for s in (1, 1, 2))
    assert {p.dtype for p in one.parameters()} == {torch.bfloat16}
    assert torch.equal(one.lm_head.weight, same.lm_head.weight)
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)
    with pytest.raises(CourseError, match="llama-300m"):
        shape_only("llama-300")


def test_no_tensor_of_a_shape_is_ever_wider_than_asked(monkeypatch):
    """Watches every tensor that is made on the way: none of a weight's size is float32."""
    from torch.utils._python_dispatch import TorchDispatchMode

    wide = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **kwargs or {})
            if isinstance(out, torch.Tensor) and out.dtype == torch.float32 and out.numel() >= 32 * 32:
                wide.append(function)
            return out

    monkeypatch.setitem(SHAPES, "tiny", shapes._llama(32, 64, 2, 4, 2, vocab_size=50))
    with Watch():
        shape_only("tiny", "bfloat16")
    assert not wide
    with Watch():
        shape_only("tiny", "float32")
    assert wide


def test_a_device_that_is_none_leaves_the_model_out_of_it(folder):
    with pytest.raises(CourseError, match="There is no device 'cuda:99'"):
        load("base", device="cuda:99")


@pytest.fixture
def adapter(folder):
    """An adapter on the base, as PEFT writes it, that has learned something."""
    from helpers.weights.adapters import lora, peft_files

    torch.manual_seed(0)
    model = lora.install(load("base")[0], rank=2)
    for _, layer in lora.layers(model):
        layer.b["default"].data.normal_(std=0.1)
    peft_files.save_adapter(model, folder / "tuned", base="base")
    return model


def test_an_adapter_is_merged_into_its_base(folder, adapter):
    ids = torch.tensor([[5, 6, 7]])
    for name in ("tuned", folder / "tuned"):
        model, tokenizer = load(name)
        torch.testing.assert_close(model(ids).logits, adapter(ids).logits, atol=1e-4, rtol=1e-4)
        assert not model.training and len(tokenizer) > 100
    half, _ = load("tuned", "bfloat16")
    assert half.dtype == torch.bfloat16 and half.model.rotary_emb.inv_freq.dtype == torch.float32
    assert models.parts_of("tuned") == [str(folder / "tuned"), str(folder / "base")]
    assert set(models.shipped()) == {"base", "tuned"}


def test_a_hash_changes_with_the_adapter_and_with_its_base(folder, adapter):
    before = models.hash_of("tuned")
    file = folder / "base" / "config.json"
    file.write_text(file.read_text() + " ")
    assert models.hash_of("tuned") != before


def test_a_damaged_adapter_says_so(folder, adapter):
    (folder / "tuned" / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CourseError, match="tuned is damaged"):
        load("tuned")
    (folder / "tuned" / "adapter_config.json").unlink()
    with pytest.raises(CourseError, match="tuned is damaged"):
        load("tuned")


def test_a_helper_of_another_model_is_refused(folder, adapter):
    (folder / "tuned" / "card.json").write_text('{"target_hash": "of another"}')
    with pytest.raises(CourseError, match="tuned was made for another model than base"):
        models.check_made_for("tuned", "base")
    models.check_made_for("base", "tuned")  # it doesn't say whom it was made for


def test_the_course_s_heads_are_known_and_are_no_model(tmp_path, monkeypatch):
    assert models.folder_of("medusa").endswith("medusa") and "medusa" in models.shipped()
    with pytest.raises(CourseError, match="heads, not a model"):
        models.load("medusa")
    monkeypatch.setattr(loading, "FOLDER", tmp_path)
    with pytest.raises(CourseError, match="train_medusa_heads --more"):
        models.folder_of("medusa")
