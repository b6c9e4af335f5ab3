"""Chat templates that begin the answer themselves: prompts, responses, targets, against transformers' tokens."""

import logging
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from onethinker_jax.data_pipeline.processor.chat import ProcessorError
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.records.record import RecordError, read_records
from onethinker_jax.rewards import score_response
from onethinker_jax.rewards.answers import extract_answer, extract_thinking
from tests.data_pipeline.making import picture, sft_row, write_image, write_rows, write_tokenizer
from tests.places import THINKING_TEMPLATE

THINKING = THINKING_TEMPLATE.read_text()
OPENING = "'<|im_start|>assistant\\n<think>\\n'"
EMPTY = "<think>\\n\\n</think>\\n\\n"
assert OPENING in THINKING

# Earlier answers lose their reasoning; the last one's is written anew, empty where there is none.
STRIPPING = THINKING.replace(
    "{{- message.content -}}",
    """\
{%- if message.role == 'assistant' -%}
{%- set parts = message.content.split('</think>') -%}
{%- set said = parts[-1].lstrip('\\n') -%}
{%- if loop.last -%}
{%- set thought = parts[0].split('<think>')[-1].strip('\\n') if parts|length > 1 else '' -%}
{{- '<think>\\n' + thought + '\\n</think>\\n\\n' + said -}}
{%- else -%}{{- said -}}{%- endif -%}
{%- else -%}{{- message.content -}}{%- endif -%}""",
)
TEMPLATES = {
    "instruct": THINKING.replace(OPENING, "'<|im_start|>assistant\\n'"),
    "thinking": THINKING,
    "without a line break": THINKING.replace(OPENING, "'<|im_start|>assistant\\n<think>'"),
    "empty block": THINKING.replace(OPENING, f"'<|im_start|>assistant\\n{EMPTY}'"),
    "by option": THINKING.replace(
        OPENING,
        "'<|im_start|>assistant\\n' + "
        f"('{EMPTY}' if enable_thinking is defined and enable_thinking is false else '<think>\\n')",
    ),
    "by message": THINKING.replace(
        OPENING,
        f"'<|im_start|>assistant\\n' + ('{EMPTY}' if '/quick' in messages[-1].content else '<think>\\n')",
    ),
    "stripping": STRIPPING,
    "marked for training": THINKING.replace(
        "{{- message.content -}}",
        "{%- generation -%}{{- message.content -}}{%- endgeneration -%}",
    ),
}
OPENINGS = {
    "instruct": "",
    "without a line break": "<think>",
    "empty block": "<think>\n\n</think>\n\n",
}
USER = {"role": "user", "content": "What is this?"}
ANSWER = "<think>It is a red star.</think>\n<answer>A</answer>"


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


@pytest.fixture(scope="module")
def directories(tmp_path_factory) -> dict[str, Path]:
    first = write_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    found = {}
    for name, template in TEMPLATES.items():
        found[name] = tmp_path_factory.mktemp("templates") / "model"
        shutil.copytree(first, found[name])
        (found[name] / "chat_template.jinja").write_text(template)
    return found


@pytest.fixture(scope="module")
def processors(directories) -> dict[str, Processor]:
    return {name: Processor.from_pretrained(path) for name, path in directories.items()}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("history", [0, 1])
def test_prompts_are_transformers_tokens(directories, processors, name, history):
    messages = [{"role": "system", "content": "Be short."}]
    messages += history * [USER, assistant(ANSWER)] + [
        {"role": "user", "content": "It is /quick: a red star?"}
    ]
    prompt = processors[name](messages, add_generation_prompt=True)
    tokenizer = AutoTokenizer.from_pretrained(str(directories[name]))
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert prompt.tokens.tolist() == theirs
    assert not prompt.loss_mask[-1]
    wanted = OPENINGS.get(name, "<think>\n")
    assert prompt.opening == (OPENINGS["empty block"] if name == "by message" else wanted)
    assert processors[name].opening == wanted
    assert tokenizer.decode(theirs).endswith(f"<|im_start|>assistant\n{prompt.opening}")


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_well_formed_answer_earns_the_format_reward(processors, name, variant):
    processor = processors[name]
    prompt = processor([USER], add_generation_prompt=True)
    empty = name == "empty block"
    written = "<answer>A</answer>" if empty else ANSWER.removeprefix("<think>")
    written = ANSWER if name == "instruct" else written
    ids = processor.tokenizer.encode(written + "<|im_end|>")
    response = processor.response(prompt.opening, ids)
    assert response == prompt.opening + written
    score = score_response(
        response, "<answer>A</answer>", problem_type="multiple choice", data_type="image", variant=variant
    )
    assert score.format == 1 and score.accuracy == 1
    assert extract_thinking(response) == ("" if empty else "It is a red star.")
    assert extract_answer(response) == "A"


def targets(processor: Processor, messages: list[dict[str, str]], images=()) -> tuple[str, str]:
    """What precedes the last run of targets, and all targets, as text; the prompt's tokens come first."""
    example = processor(messages, images=images, add_generation_prompt=False)
    prompt = processor(messages[:-1], images=images, add_generation_prompt=True)
    count = len(prompt.tokens)
    assert example.tokens[:count].tolist() == prompt.tokens.tolist()
    assert (example.positions[:, :count] == prompt.positions).all()
    assert example.loss_mask[count:].all()
    assert example.tokens[-1] == processor.eos_token_id
    decode = processor.tokenizer.decode
    return decode(prompt.tokens), decode(example.tokens[example.loss_mask])


@pytest.mark.parametrize(
    ("name", "answer", "wanted"),
    [
        ("instruct", ANSWER, ANSWER),
        ("thinking", ANSWER, ANSWER.removeprefix("<think>")),
        (
            "thinking",
            "\n<think>\n\t It is.</think>\n<answer>A</answer>",
            "It is.</think>\n<answer>A</answer>",
        ),
        ("thinking", ANSWER.replace("<think>", "<think>\n"), ANSWER.removeprefix("<think>")),
        ("thinking", ANSWER.removeprefix("<think>"), ANSWER.removeprefix("<think>")),
        ("without a line break", ANSWER, ANSWER.removeprefix("<think>")),
        ("without a line break", ANSWER.replace("<think>", "<think>\n"), ANSWER.replace("<think>", "\n")),
        ("empty block", "<answer>A</answer>", "<answer>A</answer>"),
        ("empty block", f"{OPENINGS['empty block']}A star.", "A star."),
        ("stripping", ANSWER, "It is a red star.\n</think>\n\n<answer>A</answer>"),
        ("stripping", "A star.", "\n</think>\n\nA star."),
    ],
)
def test_targets_go_on_from_the_opening(processors, name, answer, wanted):
    messages = [{"role": "user", "content": "<image>What is this?"}, assistant(answer)]
    _, found = targets(processors[name], messages, [picture(64, 64)])
    assert found == f"{wanted}<|im_end|>"


@pytest.mark.parametrize(
    ("name", "answer"),
    [("thinking", "A star."), ("without a line break", "A star."), ("empty block", ANSWER)],
)
def test_an_answer_that_does_not_go_on_from_the_opening_is_refused(processors, tmp_path, name, answer):
    write_image(tmp_path / "a.png")
    row = sft_row(problem_id=5, messages=[{"role": "user", "content": "<image>What?"}, assistant(answer)])
    (record,) = read_records(write_rows(tmp_path / "sft.json", [row]))
    with pytest.raises(
        RecordError, match=r"record 1 \(problem_id 5\): the last assistant turn does not go on from '<think>"
    ):
        processors[name].training(record)


def test_earlier_answers(directories, caplog):
    """They are targets where the template writes them as a sample would be; of others one line is said."""
    messages = [USER, assistant(ANSWER.replace("<think>", "<think>\n")), USER, assistant(ANSWER)]
    rest = ANSWER.removeprefix("<think>") + "<|im_end|>"
    as_they_are, stripping = (
        Processor.from_pretrained(directories[name]) for name in ("thinking", "stripping")
    )
    with caplog.at_level(logging.WARNING, "onethinker_jax"):
        context, found = targets(as_they_are, messages)
        assert found == rest * 2
        assert context.count("<think>") == 2
        assert not caplog.records
        for _ in range(2):
            context, found = targets(stripping, messages)
            assert "<|im_start|>assistant\n<answer>A</answer><|im_end|>" in context
            assert found == "It is a red star.\n</think>\n\n<answer>A</answer><|im_end|>"
    (line,) = caplog.records
    assert "earlier assistant turns are context, not targets" in line.message
    assert "'<think>\\n'" in line.message


def test_records_of_the_pipeline(processors, tmp_path):
    """An SFT row as annotation writes it: its prompt is what its training example begins with."""
    write_image(tmp_path / "a.png")
    (record,) = read_records(write_rows(tmp_path / "sft.json", [sft_row()]))
    for processor in processors.values():
        if processor.opening.count("</think>"):
            continue
        prompt, training = processor.prompt(record), processor.training(record)
        assert training.tokens[: len(prompt.tokens)].tolist() == prompt.tokens.tolist()
        response = processor.response(prompt.opening, training.tokens[len(prompt.tokens) :])
        assert extract_thinking(response) == "I look."
        assert extract_answer(response) == "A star."


def test_a_template_without_a_prompt_to_answer_is_refused(directories, tmp_path):
    shutil.copytree(directories["instruct"], tmp_path / "model")
    template = tmp_path / "model" / "chat_template.jinja"
    template.write_text(template.read_text().replace("add_generation_prompt", "never"))
    with pytest.raises(
        ProcessorError, match=r"model: the chat template does not end a prompt with '<\|im_start\|>"
    ):
        Processor.from_pretrained(tmp_path / "model")


def test_a_template_that_leaves_answers_out_is_refused(directories, tmp_path):
    shutil.copytree(directories["thinking"], tmp_path / "model")
    template = tmp_path / "model" / "chat_template.jinja"
    loop = "{%- for message in messages -%}"
    template.write_text(THINKING.replace(loop, loop.replace(" -%}", " if message.role != 'assistant' -%}")))
    with pytest.raises(ValueError, match="the chat template does not write assistant turns"):
        Processor.from_pretrained(tmp_path / "model")([USER, assistant(ANSWER)], add_generation_prompt=False)
