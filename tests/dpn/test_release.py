"""The authors' `pooling` dictionary: what is read is what they meant, what isn't read is refused by name."""

import re

import pytest

from dpn import DpnConfig
from dpn.release import config_from_pooling, has_router, key_mapping

KERNELS = [[1, 1], [1, 2], [2, 2]]


def place(index, kernels=KERNELS, **fields):
    return {"index": index, "kernel_size": kernels, "stride": kernels, **fields}


def pooling(layers=(7, 15, 23), **changed):
    """Give the published dictionary; None takes a key out."""
    fields = {
        "pooling_type": "adaptive",
        "pooling_layers": [place(index) for index in layers],
        "pooling_function": "max",
        "pooling_location": "post",
        "prepooling": False,
        "use_special_token": True,
        "detach_cls_token_to_predict": False,
        "router_version": "v1",
        **changed,
    }
    return {name: value for name, value in fields.items() if value is not None}


def static(*kernels, **changed):
    places = [place(index, kernel) for index, kernel in zip((7, 15, 23), kernels, strict=True)]
    return pooling(pooling_type="static", pooling_layers=places, **changed)


def test_the_published_setting_is_the_paper_preset():
    assert config_from_pooling(pooling()) == DpnConfig.from_fields(preset="paper")
    layers = config_from_pooling(pooling(layers=(9, 19, 29))).layers
    assert layers == (10, 20, 30)


def test_layers_may_come_in_any_order_and_stride_may_be_left_out():
    places = [{"index": index, "kernel_size": KERNELS} for index in (23, 7, 15)]
    assert config_from_pooling(pooling(pooling_layers=places)) == config_from_pooling(pooling())


def test_missing_optional_keys_mean_the_published_setting():
    bare = {name: pooling()[name] for name in ("pooling_type", "pooling_layers")}
    assert config_from_pooling(bare) == config_from_pooling(pooling())
    assert key_mapping(bare) == key_mapping(pooling())


def test_other_supported_settings_change_one_field_each():
    cases = {
        "pooling_function": ("avg", {"pooling": "avg"}),
        "detach_cls_token_to_predict": (True, {"router_gradient": "stopped"}),
        "router_version": ("v2", {"router": "linear"}),
    }
    for name, (value, fields) in cases.items():
        assert config_from_pooling(pooling(**{name: value})) == DpnConfig.from_fields(
            preset="paper", **fields
        )
    four = pooling(pooling_layers=[place(7, [[1, 1], [4, 4]])])
    assert config_from_pooling(four).kernels == ((1, 1), (4, 4))
    assert config_from_pooling(four).rates == (0.0, 4.0)


@pytest.mark.parametrize("last", [[1, 2], [[1, 2]]])
def test_static_pooling_forces_one_route_without_gate_or_routing_loss(last):
    config = config_from_pooling(static(2, [2, 2], last))
    assert config.route == ((2, 2), (2, 2), (1, 2))
    assert config.kernels == ((1, 1), (2, 2), (1, 2))
    assert (config.train_choice, config.eval_choice) == ("static", "static")
    assert (config.gate, config.loss_weight, config.edge) == ("none", 0.0, "floor")
    assert config.router_source == "token"
    assert config_from_pooling(static(2, 2, 2, use_special_token=False)).router_source == "last"


def test_random_pooling_draws_in_training_and_inference():
    config = config_from_pooling(pooling(pooling_type="random"))
    assert (config.train_choice, config.eval_choice, config.gate) == ("random", "random", "none")


def test_names_of_routers_become_ours_and_others_stay():
    mapping = key_mapping(pooling())

    def renamed(name):
        fitting = [(pattern, ours) for pattern, ours in mapping.items() if re.search(pattern, name)]
        assert len(fitting) <= 1
        return re.sub(*fitting[0], name) if fitting else name

    router = "model.reducer.routers."
    assert renamed("model.layers.7.pooling_router.mlp1.0.weight") == f"{router}0.norm.weight"
    assert renamed("model.layers.7.pooling_router.mlp1.0.bias") == f"{router}0.norm.bias"
    assert renamed("model.layers.15.pooling_router.mlp1.1.weight") == f"{router}1.hidden.weight"
    assert renamed("model.layers.23.pooling_router.predictor.weight") == f"{router}2.predictor.weight"
    for name in ("model.layers.17.pooling_router.predictor.weight", "model.layers.7.mlp.up_proj.weight"):
        assert renamed(name) == name
    assert len(mapping) == 9


@pytest.mark.parametrize("kind", ["static", "random"])
def test_without_adaptive_pooling_there_is_no_router(kind):
    setting = static(2, 2, 2) if kind == "static" else pooling(pooling_type="random")
    assert (has_router(setting), key_mapping(setting)) == (False, {})
    assert has_router(pooling())


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        (pooling(pooling_function="conv"), "pooling.pooling_function='conv' isn't supported"),
        (pooling(pooling_location="pre"), "pooling.pooling_location='pre' isn't supported"),
        (pooling(prepooling=True), "pooling.prepooling=True isn't supported"),
        (pooling(prepooling=0), "pooling.prepooling=0 isn't supported"),
        (
            pooling(router_version="v3"),
            "pooling.router_version='v3' isn't supported; this version reads v1 or v2",
        ),
        (pooling(pooling_type="learned"), "pooling.pooling_type='learned' isn't supported"),
        (pooling(use_special_token=False), "pooling.use_special_token=False with pooling_type=adaptive"),
        (pooling(pooling_size=3), "unknown keys ['pooling_size']"),
        (pooling(pooling_type=None), "lacks pooling_type"),
        (pooling(pooling_layers=None), "lacks pooling_layers"),
        (pooling(pooling_layers=[]), "pooling_layers must list objects with an index, found []"),
        (pooling(pooling_layers=[7, 15]), "pooling_layers must list objects with an index, found [7, 15]"),
        (pooling(pooling_layers=[{"kernel_size": 2}]), "index must be a layer counted from 0, found None"),
        (pooling(pooling_layers=[{"index": 7}]), "index 7: kernel_size and stride are [rows, columns]"),
        (pooling(pooling_layers=[place(7, "22")]), "found '22'"),
        (pooling(pooling_layers=[place(7, [[1, 1], [0, 2]])]), "found [[1, 1], [0, 2]]"),
        (pooling(pooling_layers=[place(7, stride=1)]), "index 7: stride 1 differs from kernel_size"),
        (
            pooling(pooling_layers=[place(7), place(15, [[1, 1], [2, 2]])]),
            "index 15 chooses from 1x1,2x2, index 7 from 1x1,1x2,2x2; places with different kernels",
        ),
        (static(2, KERNELS, 2), "index 15: pooling_type=static takes one kernel per place"),
        (static(1, 1, 1), "pooling_type=static with 1x1 at every place pools nothing"),
        (pooling(layers=(7, 7)), "layers must increase"),
        ("adaptive", "`pooling` must be an object, found 'adaptive'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_setting_that_is_not_read_is_refused_by_name(setting, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        config_from_pooling(setting)
