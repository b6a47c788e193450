"""The model that lmms-eval sees, without lmms-eval: scripts/test_lmms_eval.sh runs the real one."""

import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image

from llava.eval import lmms

ROOT = Path(__file__).parents[3]
RED, BLUE = Image.new("L", (8, 6), 3), Image.new("RGB", (6, 8), "blue")


class FakeAssistant:
    """Says what it was asked."""

    def __init__(self):
        self.asked = []

    def image_mark(self):
        return "<image>"

    def prompt(self, turns):
        return turns[0][0]

    def answer(self, prompt, images, decoding):
        self.asked.append((prompt, [(image.mode, image.size) for image in images], decoding))
        return f"answer {len(self.asked)}"


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(lmms, "load_assistant", lambda *_, **__: FakeAssistant())
    made = lmms.Adapter("checkpoint", batch_size="1", max_batch_size=4)
    made.task_dict = {"task": {"test": [[RED], [], [RED, BLUE]]}}
    return made


def request(context, document, **settings):
    return SimpleNamespace(args=(context, settings, lambda doc: doc, document, "task", "test"))


def test_the_entry_point_of_the_package_names_the_manifest():
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert entry["lmms_eval.models"] == {"dpn_llava": f"{lmms.__name__}:{lmms.manifest.__name__}"}


def test_the_manifest_names_a_class_below_lmms_evals_own(monkeypatch):
    class Base:
        """lmms-eval's base class."""

    registry, base = ModuleType("registry_v2"), ModuleType("model")
    registry.ModelManifest = lambda **fields: fields
    base.lmms = Base
    for name in ("lmms_eval", "lmms_eval.models", "lmms_eval.api"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "lmms_eval.models.registry_v2", registry)
    monkeypatch.setitem(sys.modules, "lmms_eval.api.model", base)
    module, _, name = lmms.manifest()["simple_class_path"].rpartition(".")
    assert module == lmms.__name__
    assert issubclass(getattr(lmms, name), (lmms.Adapter, Base))


def test_answers_come_in_the_order_of_the_requests(model):
    assert model.generate_until([request("a", 0), request("b", 1)]) == ["answer 1", "answer 2"]


def test_images_stand_in_front_unless_the_context_places_them(model):
    contexts = [request("Why?", 0), request("Why?", 1), request("Why?", 2), request("<image> or <image>?", 2)]
    model.generate_until(contexts)
    assert [prompt for prompt, *_ in model.assistant.asked] == [
        "<image>\nWhy?",
        "Why?",
        "<image> <image>\nWhy?",
        "<image> or <image>?",
    ]
    assert model.assistant.asked[2][1] == [("RGB", (8, 6)), ("RGB", (6, 8))]


def test_a_tasks_settings_become_ours(model):
    greedy = model.decoding({"do_sample": False, "temperature": 0.7, "until": ["\n\n"]})
    assert (greedy.temperature, greedy.max_new_tokens, greedy.num_beams) == (0.0, 1024, 1)
    sampled = model.decoding({"temperature": 0.7, "top_p": 0.9, "num_beams": 2, "max_new_tokens": 16})
    assert (sampled.temperature, sampled.top_p) == (0.7, 0.9)
    assert (sampled.num_beams, sampled.max_new_tokens) == (2, 16)


def test_an_unknown_argument_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="--model_args has conv_mode, which dpn_llava doesn't take"):
        lmms.Adapter("checkpoint", conv_mode="vicuna_v1")


def test_what_it_cannot_do_it_says(model):
    with pytest.raises(NotImplementedError, match="loglikelihood"):
        model.loglikelihood([])
    with pytest.raises(NotImplementedError, match="multi-round"):
        model.generate_until_multi_round([])
