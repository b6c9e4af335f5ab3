"""Which room of the package may import which: the table that tests/test_imports.py holds."""

# Nouns at the root that everybody may import; they import only each other.
NOUNS = {
    "answer_forms",
    "command_line",
    "errors",
    "files",
    "host_settings",
    "lazy_names",
    "lora_settings",
    "sampler_settings",
    "spelling",
    "tasks",
    "text_output",
    "worker_process",
}
MEDIA = {"data_pipeline.media", "data_pipeline.media.reading"}
DATA = {*MEDIA, *(f"data_pipeline.{name}" for name in ("records", "processor", "batches", "drawing"))}
REWARDS = {"rewards", "rewards.client", "rewards.equivalence"}
LOWER_TRAIN = {"train", "train.config", "train.cost", "train.log", "train.run_folder"}
# Room -> the other rooms that it may import. A room is a folder, or a file at the root.
ALLOWED: dict[str, set[str]] = {
    "model": {"model.attention"},
    "model.attention": {"model"},
    "model.generation": {"model", "model.attention"},
    "rewards": {"rewards.client", "rewards.equivalence"},
    "rewards.equivalence": set(),
    "rewards.backends": {"rewards", "endpoint", "model"},  # model: reads safetensors files
    "rewards.client": {"rewards.backends", "rewards.proto"},
    "rewards.server": {"rewards.backends", "rewards.client", "rewards.proto"},
    "rewards.proto": set(),
    "data_pipeline": set(),
    "data_pipeline.media": set(),
    "data_pipeline.media.reading": {"data_pipeline.media", "data_pipeline.records"},
    "data_pipeline.records": {"data_pipeline.media", "rewards", "rewards.equivalence"},
    "data_pipeline.processor": {*MEDIA, "data_pipeline.records", "model"},
    "data_pipeline.batches": {
        "data_pipeline.media",
        "data_pipeline.processor",
        "data_pipeline.records",
        "model",
    },
    "data_pipeline.drawing": {*MEDIA, "data_pipeline.records", "rewards"},
    "data_pipeline.worlds": {"data_pipeline.media", "data_pipeline.processor", "rewards"},
    "data_pipeline.shapes": {"data_pipeline.worlds"},
    "data_pipeline.photos": {
        *("data_pipeline.media", "data_pipeline.worlds"),
        *(f"data_pipeline.photos.{name}" for name in ("packages", "questions", "scenes")),
    },
    "data_pipeline.photos.packages": {"data_pipeline.photos"},
    "data_pipeline.photos.scenes": {"data_pipeline.photos", "data_pipeline.worlds"},
    "data_pipeline.photos.questions": {"data_pipeline.photos.scenes", "data_pipeline.worlds"},
    "data_pipeline.sources": {
        "data_pipeline.records",
        *(f"data_pipeline.sources.{name}" for name in ("grounding", "questions", "training_set")),
    },
    "data_pipeline.sources.reading": {
        "data_pipeline.media",
        "data_pipeline.records",
        "data_pipeline.sources",
    },
    "data_pipeline.sources.questions": {
        *("data_pipeline.media", "data_pipeline.records"),
        *("data_pipeline.sources", "data_pipeline.sources.reading"),
    },
    "data_pipeline.sources.grounding": {
        *("data_pipeline.media", "data_pipeline.records", "rewards"),
        *("data_pipeline.sources", "data_pipeline.sources.reading"),
    },
    "data_pipeline.sources.training_set": {
        *(*MEDIA, "data_pipeline.records", "rewards"),
        *("data_pipeline.sources", "data_pipeline.sources.reading"),
    },
    "data_pipeline.check": {*DATA, "rewards"},
    "data_pipeline.annotate": {*DATA, *REWARDS, "scoring", "endpoint"},  # a tool on top
    "endpoint": set(),
    "responses": {*DATA, "model", "model.generation"},
    "scoring": {*DATA, *REWARDS},
    "model_arguments": {*DATA, "model", "rewards.client"},
    "processes": set(),
    "question": {"data_pipeline.media", "data_pipeline.media.reading", "data_pipeline.records"},
    "assistant": {
        *("data_pipeline.processor", "data_pipeline.records", "rewards", "rewards.equivalence"),
        *("model", "model.generation", "model_arguments", "question", "responses"),
    },
    "evaluate": {
        *DATA,
        *REWARDS,
        *("data_pipeline.sources", "evaluate.benchmarks", "evaluate.metrics", "evaluate.judges"),
        *("model", "responses", "scoring", "model_arguments", "processes", "evaluate.answers"),
        *("evaluate.asking", "evaluate.results", "evaluate.page"),
    },
    "evaluate.asking": {
        *("data_pipeline.media.reading", "data_pipeline.processor", "data_pipeline.records"),
        *("data_pipeline.sources", "evaluate", "evaluate.answers", "evaluate.benchmarks"),
        *("model", "model_arguments", "processes", "responses"),
    },
    "evaluate.answers": {
        *DATA,
        *REWARDS,
        *("model", "responses", "scoring", "processes", "endpoint", "model_arguments"),
    },
    "evaluate.benchmarks": {"data_pipeline.sources", "data_pipeline.records"},
    "evaluate.judges": {"endpoint"},
    "evaluate.metrics": {
        *("data_pipeline.sources", "data_pipeline.records", "evaluate.benchmarks", "evaluate.judges"),
        *REWARDS,
    },
    "evaluate.page": {
        *DATA,
        *("rewards", "data_pipeline.sources", "evaluate.benchmarks", "evaluate.metrics", "evaluate.results"),
    },
    "evaluate.results": {
        *("data_pipeline.sources", "data_pipeline.records", "evaluate.benchmarks", "evaluate.judges"),
        *REWARDS,
        "evaluate.metrics",
    },
    "demo": {
        *DATA,
        "rewards",
        "rewards.client",
        "scoring",
        "model_arguments",
        "assistant",
        "question",
        "demo.page",
    },
    "demo.page": {
        *DATA,
        *("rewards", "rewards.client", "scoring", "model", "model.generation", "model_arguments"),
        *("assistant", "question", "demo", "serve"),
    },
    "serve": {
        *DATA,
        *("model", "model.generation", "model_arguments", "responses", "serve.requests"),
    },
    "serve.requests": {*DATA, "model.generation", "serve"},
    "train": {
        *(DATA | REWARDS | LOWER_TRAIN),
        *(
            "data_pipeline.worlds",
            "data_pipeline.shapes",
            "data_pipeline.photos",
            "model",
            "model.attention",
            "model.generation",
        ),
        *(
            "responses",
            "scoring",
            "processes",
            "evaluate.answers",
            "train.checkpoints",
            "train.health",
            "train.export",
            "train.preflight",
            "train.plans",
            "train.plans.search",
            "train.simulation",
            "train.rl",
            "train.pages",
            "train.stopping",
        ),
    },
    "train.checkpoints": {*LOWER_TRAIN, "model"},
    "train.export": {*(DATA | LOWER_TRAIN), "model", "train.checkpoints"},
    "train.config": {"data_pipeline.batches", "rewards", "rewards.client", "train.run_folder"},
    "train.cost": {"model.attention"},
    "train.plans": {
        *("model", "model.attention", "model.generation", "responses"),
        *(*DATA, *LOWER_TRAIN, "train.rl", "train.simulation"),
    },
    "train.plans.search": {
        *("model", "model.attention", "model.generation", "responses"),
        *(*DATA, *LOWER_TRAIN, "train.plans", "train.simulation"),
    },
    "train.simulation": {*DATA, "model", "model.attention", "model.generation", *LOWER_TRAIN},
    "train.log": {"train.config", "train.run_folder"},
    "train.stopping": {"processes", "train.config", "train.log"},
    "train.run_folder": set(),  # a noun of all rooms of train
    "train.health": {*DATA, "model", "train.checkpoints", *LOWER_TRAIN},
    "train.rl": {
        *DATA,
        "rewards",
        "model",
        "model.attention",
        "model.generation",
        "responses",
        "scoring",
        "train.health",
        "processes",
        *LOWER_TRAIN,
    },
    "train.pages": {*DATA, "rewards", "model", "scoring", "evaluate.answers", *LOWER_TRAIN, "train.rl"},
    "train.preflight": {
        *(DATA | LOWER_TRAIN),
        *("data_pipeline.worlds", "data_pipeline.shapes", "data_pipeline.photos", "model"),
        *("model.generation", "responses", "scoring", "train.export", "train.health"),
    },
    "__main__": {"train.config"},  # says what there is
}
