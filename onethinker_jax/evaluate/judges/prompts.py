"""What a judge is asked, in our own words: one prompt a use. Their digest stands in the result."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onethinker_jax.endpoint.answer_cache import digest
from onethinker_jax.text_output import encodable


@dataclass(frozen=True)
class JudgePrompt:
    """A system turn, and a user turn with a {placeholder} for each field of the item."""

    system: str
    user: str

    def messages(self, **fields: str) -> list[dict[str, Any]]:
        """The conversation about one item."""
        return [
            {"role": "system", "content": self.system},
            {"role": "user", "content": encodable(self.user.format(**fields))},
        ]


CHOICE = JudgePrompt(
    "Someone answered a multiple-choice question in free words. Find the option that the answer means. Do not solve "
    "the question yourself: an answer that is wrong still means its option. Write the option's letter and nothing "
    "else, or Z if the answer means none of the options, means several, or refuses to answer.",
    "Question:\n{question}\n\nOptions:\n{options}\n\nThe answer given:\n{response}\n\nThe letter it means:",
)

VALUE = JudgePrompt(
    "Someone worked on a question. Copy the final answer out of the work: only the value, without words around it, "
    "units as the question asks for them. Do not solve the question and do not correct the answer. Write the answer "
    "on one line and nothing else, or NONE if the work ends without an answer.",
    "Question:\n{question}\n\nThe answer is to be {form}.\n\nThe work:\n{response}\n\nThe final answer:",
)

COMPARISON = JudgePrompt(
    "Compare an answer to a mathematical question with the true answer. They agree if they state the same thing: "
    "another notation, order of writing, or unit of the same size does not matter, a rounding that the question does "
    "not ask for does. Where the question has lettered options, the letter counts, and a letter agrees with the "
    "content of its option. Write yes if they agree, else no, and nothing else.",
    "Question:\n{question}\n\nTrue answer:\n{truth}\n\nAnswer given:\n{answer}\n\nDo they agree?",
)

CAPTION_ANSWER = JudgePrompt(
    "You get the description of a video that you cannot see, and a question about the video. Answer from the "
    "description alone, in a phrase or one short sentence. If the description does not tell, write: not described.",
    "Description:\n{caption}\n\nQuestion:\n{question}\n\nAnswer:",
)

MATCH = JudgePrompt(
    "Compare an answer to a question about a video with the true answer. They agree if they mean the same; other "
    "words for the same thing do not matter. Where the question asks for a text that is to be read in the video, "
    "every letter must be the same. Rate the agreement from 0 (nothing in common) to 5 (the same). Write JSON and "
    'nothing else: {"correct": "yes" or "no", "rating": 0 to 5}.',
    "Question:\n{question}\n\nTrue answer:\n{truth}\n\nAnswer given:\n{answer}\n\nJSON:",
)

RELEVANCE = JudgePrompt(
    "You get the reference caption of a scientific figure, and a caption that somebody else wrote for the same "
    "figure without seeing the reference. Rate from 1 to 5 how relevant the second caption is to what the reference "
    "describes: 5 if it speaks of the same subjects, panels and context without straying from them, 1 if it has "
    "nothing to do with them. First compare the two in your mind, then write the whole number and nothing else.",
    "Reference caption:\n{reference}\n\nSecond caption:\n{caption}\n\nRelevance (1 to 5):",
)

PROMPTS: Mapping[str, JudgePrompt] = {
    "choice": CHOICE,
    "value": VALUE,
    "comparison": COMPARISON,
    "caption answer": CAPTION_ANSWER,
    "match": MATCH,
    "relevance": RELEVANCE,
}


def prompts_digest(prompts: Mapping[str, JudgePrompt] = PROMPTS) -> str:
    """The SHA-256 of all prompts."""
    return digest({name: [prompt.system, prompt.user] for name, prompt in prompts.items()})
