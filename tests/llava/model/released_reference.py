"""The authors' model as their release describes it, slowly: one sample at a time, plain torch, own code only.

It reads the files of a checkpoint in their layout. Nothing of `llava`, `dpn` or transformers is used, and
nothing is shared with them: no packing, no plan, no cache. Shapes: T tokens, V visual tokens, D width, E
experts.
"""

import json
import math

import torch
from torch.nn import functional

IMAGE, IGNORED = -200, -100


class Sample:
    """One sample on its way through the decoder.

    `hidden` is (T, D); `kinds` has the merged index of every text token and ("image", number) for visual
    ones; `grids` the rows and columns of every image; `routers` the merged indices of the routing tokens.
    `routes` and `probabilities` are filled place by place, with None where the sample was left alone.
    """

    def __init__(self, hidden, kinds, grids, routers):
        self.hidden, self.kinds, self.grids, self.routers = hidden, kinds, grids, routers
        self.routes, self.probabilities = [], []


class Released:
    """The whole model."""

    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        index = json.loads((folder / "pytorch_model.bin.index.json").read_text())["weight_map"]
        self.weights = {}
        for file in sorted(set(index.values())):
            self.weights |= torch.load(folder / file, weights_only=True)
        self.tower = json.loads(
            (folder.__class__(self.config["mm_vision_tower"]) / "config.json").read_text()
        )
        self.router_id = json.loads((folder / "added_tokens.json").read_text())["<ROUTER>"]
        self.places = {place["index"]: place for place in self.config["pooling"]["pooling_layers"]}

    def run(self, ids, pixels, routes=None):
        """Give logits (text tokens, vocabulary) by merged index, the route, and the probabilities.

        ids have -200 at images, pixels (images, 3, h, w); `routes` are indices of experts to take instead of
        the most probable ones, one per place.
        """
        sample = self._merge(ids, pixels)
        for layer in range(self.config["num_hidden_layers"]):
            sample.hidden = self._layer(layer, sample.hidden)
            if layer in self.places:
                forced = None if routes is None else routes[len(sample.routes)]
                self._pool(layer, sample, forced)
        states = self._norm("model.norm", sample.hidden)
        logits = states @ self.weights["lm_head.weight"].T
        text = [(kind, row) for row, kind in enumerate(sample.kinds) if isinstance(kind, int)]
        return {
            "logits": {kind: logits[row] for kind, row in text},
            "rows": logits,
            "kinds": sample.kinds,
            "route": sample.routes,
            "probabilities": sample.probabilities,
        }

    def losses(self, samples, routes):
        """Give the summed answer loss, its number of tokens, and the routing loss of a batch.

        samples are (ids, pixels, labels); routes the experts that every sample took.
        """
        total, count, rates = 0.0, 0, []
        for (ids, pixels, labels), taken in zip(samples, routes, strict=True):
            result = self.run(ids, pixels, taken)
            truth = self._merged_labels(ids, labels)
            for row, kind in enumerate(result["kinds"][1:]):
                target = truth[kind] if isinstance(kind, int) else IGNORED
                if target != IGNORED:
                    total = total - result["rows"][row].log_softmax(-1)[target]
                    count += 1
            for probabilities in result["probabilities"]:
                if probabilities is not None:
                    best = int(probabilities.argmax())
                    height, width = self.config["pooling"]["pooling_layers"][0]["kernel_size"][best]
                    rates.append(probabilities[best] * math.log2(height * width))
        routing = torch.stack(rates).mean() if rates else torch.tensor(1.5)
        return total, count, torch.clamp(1.5 - routing, min=0)

    def greedy(self, ids, pixels, steps):
        """Continue a prompt token by token, computing everything again for each."""
        ids, answer = list(ids), []
        for _ in range(steps):
            answer.append(int(self.run(ids, pixels)["rows"][-1].argmax()))
            ids.append(answer[-1])
        return answer

    def _merge(self, ids, pixels):
        rows, kinds, grids, index = [], [], [], 0
        for token in ids:
            if token != IMAGE:
                rows.append(self.weights["model.embed_tokens.weight"][token][None])
                kinds.append(index)
                index += 1
                continue
            visual = self._project(self._features(pixels[len(grids)]))
            side = math.isqrt(len(visual))
            rows.append(visual)
            kinds += [("image", len(grids))] * len(visual)
            grids.append((side, side))
            index += len(visual)
        places = zip(self._text_index(ids), ids, strict=True)
        return Sample(
            torch.cat(rows), kinds, grids, [place for place, token in places if token == self.router_id]
        )

    def _text_index(self, ids):
        """Merged index of every id, for an image that of its first visual token."""
        side = (self.tower["image_size"] // self.tower["patch_size"]) ** 2
        found, index = [], 0
        for token in ids:
            found.append(index)
            index += side if token == IMAGE else 1
        return found

    def _merged_labels(self, ids, labels):
        return dict(zip(self._text_index(ids), labels, strict=True))

    def _pool(self, layer, sample, forced):
        """Choose an expert from the mean state of the router tokens; pool and scale the visual tokens."""
        visual = sum(height * width for height, width in sample.grids)
        if visual < 16:
            sample.routes.append(None)
            sample.probabilities.append(None)
            return
        rows = [sample.kinds.index(kind) for kind in sample.routers]
        state = torch.stack([sample.hidden[row] for row in rows]).mean(0)
        if self.config["pooling"]["detach_cls_token_to_predict"]:
            state = state.detach()
        probabilities = (self._route(layer, state) / 10).softmax(-1)
        choice = int(probabilities.argmax()) if forced is None else forced
        height, width = self.places[layer]["kernel_size"][choice]
        hidden, kinds, number, row = [], [], 0, 0
        while row < len(sample.kinds):
            if isinstance(sample.kinds[row], int):
                hidden.append(sample.hidden[row][None])
                kinds.append(sample.kinds[row])
                row += 1
                continue
            rows_of_grid, columns = sample.grids[number]
            block = sample.hidden[row : row + rows_of_grid * columns].T.reshape(1, -1, rows_of_grid, columns)
            merge = {"max": functional.max_pool2d, "avg": functional.avg_pool2d}
            pooled = merge[self.config["pooling"]["pooling_function"]](block, (height, width))  # floors
            hidden.append(pooled.flatten(2)[0].T * probabilities[choice])
            kinds += [("image", number)] * len(hidden[-1])
            row += rows_of_grid * columns
            sample.grids[number] = (rows_of_grid // height, columns // width)
            number += 1
        sample.hidden, sample.kinds = torch.cat(hidden), kinds
        sample.routes.append(choice)
        sample.probabilities.append(probabilities)

    def _route(self, layer, state):
        start = f"model.layers.{layer}.pooling_router."
        if self.config["pooling"]["router_version"] == "v2":
            return self.weights[f"{start}predictor.weight"] @ state
        centred = state - state.mean()
        normed = centred / torch.sqrt(centred.square().mean() + 1e-5)
        normed = normed * self.weights[f"{start}mlp1.0.weight"] + self.weights[f"{start}mlp1.0.bias"]
        hidden = functional.gelu(self.weights[f"{start}mlp1.1.weight"] @ normed)
        return self.weights[f"{start}predictor.weight"] @ hidden

    def _norm(self, name, hidden):
        scale = torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self.config["rms_norm_eps"])
        return hidden * scale * self.weights[f"{name}.weight"]

    def _layer(self, layer, hidden):
        start, heads = f"model.layers.{layer}.", self.config["num_attention_heads"]
        normed = self._norm(f"{start}input_layernorm", hidden)
        query, key, value = (
            (normed @ self.weights[f"{start}self_attn.{name}_proj.weight"].T).reshape(len(hidden), heads, -1)
            for name in "qkv"
        )
        query, key = rotated(query), rotated(key)
        scores = torch.einsum("ihc,jhc->hij", query, key) / math.sqrt(query.shape[-1])
        later = torch.ones(len(hidden), len(hidden), dtype=torch.bool).triu(1)
        mixed = torch.einsum("hij,jhc->ihc", scores.masked_fill(later, -math.inf).softmax(-1), value)
        hidden = hidden + mixed.flatten(1) @ self.weights[f"{start}self_attn.o_proj.weight"].T
        normed = self._norm(f"{start}post_attention_layernorm", hidden)
        gate, up, down = (self.weights[f"{start}mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
        return hidden + (functional.silu(normed @ gate.T) * (normed @ up.T)) @ down.T

    def _project(self, features):
        first, second = (self._affine(f"model.mm_projector.{number}") for number in (0, 2))
        return second(functional.gelu(first(features)))

    def _affine(self, name):
        return lambda x: x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _features(self, pixels):
        """CLIP's last but one hidden state of one image (3, h, w), without the class token: (V, F)."""
        start = "model.vision_tower.vision_tower.vision_model."
        weights, heads, eps = self.weights, self.tower["num_attention_heads"], self.tower["layer_norm_eps"]
        patch = self.tower["patch_size"]
        patches = functional.conv2d(
            pixels[None], weights[f"{start}embeddings.patch_embedding.weight"], stride=patch
        )
        tokens = torch.cat([weights[f"{start}embeddings.class_embedding"][None], patches.flatten(2)[0].T])
        hidden = tokens + weights[f"{start}embeddings.position_embedding.weight"]

        def norm(name, x):
            return functional.layer_norm(
                x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps
            )

        hidden = norm(f"{start}pre_layrnorm", hidden)
        for layer in range(self.tower["num_hidden_layers"] - 1):
            inside = f"{start}encoder.layers.{layer}."
            normed = norm(f"{inside}layer_norm1", hidden)
            query, key, value = (
                self._affine(f"{inside}self_attn.{name}_proj")(normed).reshape(len(normed), heads, -1)
                for name in "qkv"
            )
            scores = torch.einsum("ihc,jhc->hij", query, key) / math.sqrt(query.shape[-1])
            mixed = torch.einsum("hij,jhc->ihc", scores.softmax(-1), value).flatten(1)
            hidden = hidden + self._affine(f"{inside}self_attn.out_proj")(mixed)
            first = self._affine(f"{inside}mlp.fc1")(norm(f"{inside}layer_norm2", hidden))
            hidden = hidden + self._affine(f"{inside}mlp.fc2")(
                first * torch.sigmoid(1.702 * first)
            )  # quick GELU
        return hidden[1:]


def rotated(states):
    """Rotate (T, heads, C) by positions 0, 1, 2, ...: channel c goes with channel c + C/2."""
    half = states.shape[-1] // 2
    speed = 10000.0 ** -(torch.arange(half) / half)
    angle = torch.arange(len(states))[:, None] * speed  # (T, C/2)
    cosine, sine = angle.cos()[:, None], angle.sin()[:, None]
    first, second = states[..., :half], states[..., half:]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
