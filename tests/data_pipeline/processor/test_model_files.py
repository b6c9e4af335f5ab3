"""Tokenizer, template, processor and generation files of a model directory: missing, broken, or unlike the released."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from onethinker_jax.data_pipeline.processor.chat import ProcessorError
from onethinker_jax.data_pipeline.processor.end_tokens import EndTokens
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.tokenizer import CHAT_TEMPLATE
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.responses import Sampler
from onethinker_jax.sampler_settings import SamplerSettings

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 7032\n"
IMAGE, VIDEO = "preprocessor_config.json", "video_preprocessor_config.json"


@pytest.fixture
def model(qwen_directory, tmp_path) -> Path:
    shutil.copytree(qwen_directory, tmp_path / "model")
    return tmp_path / "model"


def change(file: Path, **fields) -> None:
    """Sets fields of a JSON file, made if it is missing; a field of value ... is taken out."""
    value = json.loads(file.read_text()) if file.is_file() else {}
    value = {name: one for name, one in {**value, **fields}.items() if one is not ...}
    file.write_text(json.dumps(value))


# ---------------------------------------------------------------- processor files


def test_missing_processor_files_are_the_released_ones(model, caplog):
    (model / IMAGE).unlink()
    (model / VIDEO).unlink()
    with caplog.at_level(logging.WARNING, "onethinker_jax"):
        processor = Processor.from_pretrained(model)
    assert processor.limits.image_min_pixels == 65536 and processor.limits.image_max_pixels == 16777216
    assert processor.limits.video_total.max_pixels == 25165824
    assert processor.sizes.patch_size == 16 and processor.sizes.merge_size == 2
    assert [record.message for record in caplog.records] == [
        f"{model}: has no {IMAGE}; the released models' values stand for it (65536 to 16777216 pixels)",
        f"{model}: has no {VIDEO}; the released models' values stand for it (4096 to 25165824 pixels)",
    ]


def test_transformers_5_keeps_them_in_one_file(model, caplog):
    configs = {
        f"{kind}_processor": json.loads((model / name).read_text())
        for kind, name in (("image", IMAGE), ("video", VIDEO))
    }
    (model / IMAGE).unlink()
    (model / VIDEO).unlink()
    (model / "processor_config.json").write_text(json.dumps(configs))
    with caplog.at_level(logging.WARNING, "onethinker_jax"):
        assert Processor.from_pretrained(model).limits.image_max_pixels == 40000
    assert not caplog.records
    other = {"size": {"shortest_edge": 4096, "longest_edge": 50000}}
    (model / IMAGE).write_text(json.dumps(other))
    with pytest.raises(
        ProcessorError, match=r"model: size is .*50000.* in preprocessor_config.json, but .*40000"
    ):
        Processor.from_pretrained(model)
    (model / IMAGE).unlink()
    configs["image_processor"]["do_resize"] = False
    (model / "processor_config.json").write_text(json.dumps(configs))
    with pytest.raises(ProcessorError, match=r"/processor_config\.json: do_resize is False"):
        Processor.from_pretrained(model)


@pytest.mark.parametrize("file", [IMAGE, VIDEO])
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"do_resize": False}, "do_resize is False, but media are processed with True here"),
        ({"do_rescale": False}, "do_rescale is False"),
        ({"do_normalize": False}, "do_normalize is False"),
        ({"do_convert_rgb": False}, "do_convert_rgb is False"),
        ({"do_center_crop": True}, "do_center_crop is True"),
        ({"do_pad": True}, "do_pad is True"),
        ({"resample": 2}, "resample is 2, but media are processed with 3 here"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor is 0.00784"),
        ({"image_std": [0.26, 0.26, 0.27]}, r"image_std is \[0.26, 0.26, 0.27\]"),
        (
            {"size": {"height": 448, "width": 448}},
            "size is {'height': 448.*expected shortest_edge and longest_edge",
        ),
        ({"size": 448}, "size is 448; expected"),
        ({"size": {"shortest_edge": "a"}}, "smallest area is 'a', not a whole number"),
        ({"max_pixels": 1.5}, "largest area is 1.5, not a whole number"),
    ],
)
def test_steps_that_would_be_done_otherwise_are_refused(model, file, fields, said):
    change(model / file, **fields)
    with pytest.raises(ProcessorError, match=rf"/{file}: {said}"):
        Processor.from_pretrained(model)


def test_what_transformers_writes_is_read(model):
    """Its processor saves every setting, null where there is none."""
    image = json.loads((model / IMAGE).read_text())
    Qwen2VLImageProcessorPil(
        **{name: image[name] for name in image if name != "processor_class"}
    ).save_pretrained(model)
    written = json.loads((model / IMAGE).read_text())
    assert (
        written["do_resize"]
        and written["resample"] == 3
        and written["rescale_factor"] == pytest.approx(1 / 255)
    )
    unsaid = dict.fromkeys(("crop_size", "do_center_crop", "do_pad", "device", "max_pixels", "min_pixels"))
    change(model / IMAGE, **unsaid)
    change(model / VIDEO, **unsaid, do_resize=None, rescale_factor=0.00392156862745098, do_sample_frames=True)
    assert Processor.from_pretrained(model).limits.image_max_pixels == 40000


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        (
            "patch_size",
            IMAGE,
            "patch_size is 16 in config.json, 14 in preprocessor_config.json, 16 in video_",
        ),
        ("merge_size", VIDEO, "merge_size is 2 in config.json, 2 in preprocessor_config.json, 14 in video_"),
        (
            "spatial_merge_size",
            "config.json",
            "merge_size is 14 in config.json, 2 in preprocessor_config.json",
        ),
        ("temporal_patch_size", "config.json", "temporal_patch_size is 14 in config.json, 2 in pre"),
    ],
)
def test_patches_that_are_not_the_models_are_refused(model, name, file, said):
    vision = {"patch_size": 16, "temporal_patch_size": 2, "spatial_merge_size": 2}
    if file == "config.json":
        vision[name] = 14
    else:
        change(model / file, **{name: 14})
    (model / "config.json").write_text(json.dumps({"model_type": "qwen3_vl", "vision_config": vision}))
    with pytest.raises(ProcessorError, match=f"model: {said}"):
        Processor.from_pretrained(model)


def test_another_familys_directory_is_named_before_its_files(model):
    change(model / IMAGE, image_mean=[0.48, 0.46, 0.41], patch_size=14)
    (model / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl", "vision_config": {}}))
    with pytest.raises(ProcessorError, match=r"config\.json: model_type 'qwen2_5_vl' is not served"):
        Processor.from_pretrained(model)
    (model / "config.json").unlink()
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "a/b"}')
    with pytest.raises(ProcessorError, match=r"model: holds an adapter \(adapter_config\.json\) of a/b"):
        Processor.from_pretrained(model)
    with pytest.raises(ProcessorError, match="is a file; name the directory"):
        Processor.from_pretrained(model / "tokenizer.json")


# ---------------------------------------------------------------- tokenizer and template


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", IMAGE, VIDEO, "chat_template.jinja"]
)
def test_files_that_git_left_out_are_named(model, name):
    (model / name).write_text(POINTER)
    with pytest.raises(ProcessorError, match=rf"/{name}: is a Git LFS pointer"):
        Processor.from_pretrained(model)


def test_a_tokenizer_that_cannot_be_read(model):
    (model / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(ProcessorError, match=r"tokenizer\.json: cannot be read as a tokenizer \("):
        Processor.from_pretrained(model)
    (model / "tokenizer.json").unlink()
    with pytest.raises(
        ProcessorError, match=r"model: has no tokenizer\.json \(vocab\.json alone is not read"
    ):
        Processor.from_pretrained(model)


MARKED = CHAT_TEMPLATE.replace("'\\n'", "'\\nM'", 1)  # told apart from the others by an M after each role


@pytest.mark.parametrize(
    ("jinja", "processors", "tokenizers", "marked"),
    [
        (MARKED, CHAT_TEMPLATE, CHAT_TEMPLATE, True),
        (None, MARKED, CHAT_TEMPLATE, True),
        (None, ..., MARKED, True),
        (
            None,
            None,
            [{"name": "tool_use", "template": CHAT_TEMPLATE}, {"name": "default", "template": MARKED}],
            True,
        ),
        (None, None, CHAT_TEMPLATE, False),
        (MARKED, None, None, True),
    ],
)
def test_where_templates_are_found(model, jinja, processors, tokenizers, marked):
    """A file of its own, then the processor's, then the tokenizer's, of a list the default; ... is an empty file."""
    (model / "chat_template.jinja").unlink()
    if jinja is not None:
        (model / "chat_template.jinja").write_text(jinja)
    if processors is not None:
        held = {} if processors is ... else {"chat_template": processors}
        (model / "chat_template.json").write_text(json.dumps(held))
    change(model / "tokenizer_config.json", chat_template=tokenizers)
    if tokenizers is None:
        (model / "tokenizer_config.json").unlink()
    example = Processor.from_pretrained(model)([{"role": "user", "content": "?"}], add_generation_prompt=True)
    text = Processor.from_pretrained(model).tokenizer.decode(example.tokens)
    assert text.startswith("<|im_start|>user\nM?" if marked else "<|im_start|>user\n?")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (..., "model: has no chat template; take chat_template.jinja from the model"),
        (
            [{"name": "rag", "template": "a"}],
            r"tokenizer_config\.json: none of its chat templates is the default: rag",
        ),
        ([{"name": "rag"}], r"tokenizer_config\.json: chat_template is no list of names and templates"),
        ({"default": "a"}, r"tokenizer_config\.json: chat_template must be a text, is a dict"),
        ("{% if %}", "model: its chat template is wrong"),
    ],
)
def test_templates_that_are_none(model, template, said):
    (model / "chat_template.jinja").unlink()
    change(model / "tokenizer_config.json", chat_template=template)
    with pytest.raises(ProcessorError, match=said):
        Processor.from_pretrained(model)


def test_a_template_that_fails_is_one_line(model):
    (model / "chat_template.jinja").write_text("{{ '<|im_start|>' + messages[0].content + 1 }}")
    with pytest.raises(
        ProcessorError, match="model: the chat template refuses the messages \\(can only concatenate"
    ):
        Processor.from_pretrained(model)
    (model / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(ProcessorError, match=r"chat_template\.jinja: is no text"):
        Processor.from_pretrained(model)
    (model / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    change(model / "tokenizer_config.json", eos_token={"id": 3})
    with pytest.raises(ProcessorError, match=r"tokenizer_config\.json: eos_token is {'id': 3}, no token"):
        Processor.from_pretrained(model)


def test_a_tokenizer_of_another_model_is_refused(model):
    tokenizer = Processor.from_pretrained(model).tokenizer
    image, size = tokenizer.token_id("<|image_pad|>"), len(tokenizer)
    change(
        model / "config.json", model_type="qwen3_vl", image_token_id=image, text_config={"vocab_size": size}
    )
    Processor.from_pretrained(model)
    change(model / "config.json", image_token_id=151655)
    with pytest.raises(
        ProcessorError, match=rf"config\.json: image_token_id is 151655, but {image} in the tokenizer"
    ):
        Processor.from_pretrained(model)
    change(model / "config.json", image_token_id=image, text_config={"vocab_size": size - 1})
    with pytest.raises(
        ProcessorError, match=rf"vocab_size {size - 1} is less than the tokenizer's {size} tokens"
    ):
        Processor.from_pretrained(model)


# ---------------------------------------------------------------- what ends a sample

TURN, TEXT = "<|im_end|>", "<|endoftext|>"


@pytest.mark.parametrize(
    ("generation", "config", "eos", "pad"),
    [
        (None, None, [TURN], TEXT),  # the tokenizer's
        ({}, None, [TURN], TEXT),
        ({"eos_token_id": TURN, "pad_token_id": TEXT}, None, [TURN], TEXT),
        ({"eos_token_id": [TURN, TEXT]}, None, [TURN, TEXT], TEXT),  # as released, without a pad
        ({"eos_token_id": [TEXT]}, None, [TEXT, TURN], TEXT),  # a turn's end ends a sample in any case
        ({"eos_token_id": None, "pad_token_id": TURN}, {"eos_token_id": TEXT}, [TEXT, TURN], TURN),
        (None, {"eos_token_id": [TURN, TEXT], "pad_token_id": None}, [TURN, TEXT], TEXT),
        (None, {"text_config": {"eos_token_id": TEXT, "pad_token_id": TURN}}, [TEXT, TURN], TURN),
        (
            {"eos_token_id": TURN},
            {"eos_token_id": [TURN, TEXT], "text_config": {"pad_token_id": TURN}},
            [TURN],
            TURN,
        ),
    ],
)
def test_every_listed_token_ends_a_sample(model, generation, config, eos, pad):
    plain = Processor.from_pretrained(model)

    def ids(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: ids(one) for name, one in value.items()}
        if isinstance(value, list):
            return [ids(one) for one in value]
        return plain.tokenizer.token_id(value) if isinstance(value, str) else value

    for name, held in (("generation_config.json", generation), ("config.json", config)):
        if held is not None:
            (model / name).write_text(json.dumps(ids(held)))
    processor = Processor.from_pretrained(model)
    assert processor.ends == EndTokens(tuple(ids(eos)), ids(pad))
    assert processor.eos_token_id == ids(TURN) and processor.pad_token_id == ids(pad)
    settings = SamplerSettings(prompt_slots=1, prompt_tokens=8, prompt_patches=4, max_new_tokens=4)
    sampler = Sampler(None, processor, settings, mesh=make_mesh())  # type: ignore[arg-type]
    assert sampler.config.eos_ids == tuple(ids(eos))
    assert processor.ends.to_hf()["eos_token_id"] == (ids(eos) if len(eos) > 1 else ids(eos[0]))


@pytest.mark.parametrize("value", ["<|im_end|>", True, -1, 10**6, [0, 1.5], {"a": 1}])
def test_ids_that_are_no_tokens(model, value):
    change(model / "generation_config.json", pad_token_id=value)
    with pytest.raises(
        ProcessorError, match=r"generation_config\.json: pad_token_id .* is no token of a tokenizer of"
    ):
        Processor.from_pretrained(model)
