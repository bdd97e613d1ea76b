"""The check of ONNX files from strangers: what is no exported model is refused before ONNX Runtime opens it."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from cascade.bundle.graph import MAX_CONSTANT_NODES, MAX_NODES, OPERATORS, GraphError, check_graph

NODE, ARRAY = helper.make_node, numpy_helper.from_array
SHIPPED = Path(__file__).resolve().parents[2] / "models" / "scene15"


def model(nodes: Sequence[onnx.NodeProto], weights: Sequence[onnx.TensorProto] = (), shape: object = ("N", 4)) -> bytes:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "graph", [value], [answer], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()


def body(name: str) -> onnx.GraphProto:
    return helper.make_graph([NODE("Identity", ["a"], ["b"])], name, [], [])


def whole(number: int, name: str = "k") -> onnx.TensorProto:
    return ARRAY(np.array([number], np.int64), name)


def declared(elements: int) -> onnx.TensorProto:
    tensor = ARRAY(np.zeros(4, np.float32), "w")
    tensor.dims[:] = [elements, 4]
    return tensor


def elsewhere() -> onnx.TensorProto:
    tensor = ARRAY(np.zeros(4, np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, "/etc/passwd")
    tensor.ClearField("raw_data")
    return tensor


IDENTITY = NODE("Identity", ["x"], ["y"])
HOSTILE = {
    "loop": (model([NODE("Loop", ["k", "", "x"], ["y"], body=body("b"))], [whole(2**62)]), "operator 'Loop'"),
    "if": (model([NODE("If", ["x"], ["y"], then_branch=body("t"), else_branch=body("e"))]), "operator 'If'"),
    "scan": (model([NODE("Scan", ["x"], ["y"], body=body("b"), num_scan_inputs=1)]), "operator 'Scan'"),
    "a graph in a known operator": (model([NODE("Add", ["x", "x"], ["y"], body=body("b"))]), "graph inside of a node"),
    "an operator of others": (model([NODE("Run", ["x"], ["y"], domain="com.example")]), "domain 'com.example'"),
    "random numbers": (model([NODE("RandomNormal", [], ["y"], shape=[2**40])]), "operator 'RandomNormal'"),
    "text": (model([NODE("StringNormalizer", ["x"], ["y"])]), "operator 'StringNormalizer'"),
    "a huge constant": (model([NODE("ConstantOfShape", ["k"], ["y"])], [whole(2**40)]), "one axis"),
    "a huge constant in a node": (
        model([NODE("Constant", [], ["k"], value=whole(2**40)), NODE("ConstantOfShape", ["k"], ["y"])]),
        "one axis",
    ),
    "a huge constant of numbers": (
        model([NODE("Constant", [], ["k"], value_ints=[2**40]), NODE("Expand", ["x", "k"], ["y"])]),
        "one axis",
    ),
    "a huge expansion": (model([NODE("Expand", ["x", "k"], ["y"])], [whole(2**50)]), "one axis"),
    "a huge tiling": (model([NODE("Tile", ["x", "k"], ["y"])], [whole(-(2**33))]), "one axis"),
    "a huge padding": (model([NODE("AveragePool", ["x"], ["y"], kernel_shape=[2], pads=[2**40, 0])]), "a setting"),
    "constants without end": (
        model([NODE("Concat", [f"c{n}"] * 2, [f"c{n + 1}"], axis=0) for n in range(MAX_CONSTANT_NODES + 1)],
              [whole(1, "c0")]),
        "depend on no picture",
    ),
    "shapes without end": (
        model([NODE("Shape", ["x"], ["c0"])]
              + [NODE("Mul", [f"c{n}"] * 2, [f"c{n + 1}"]) for n in range(MAX_CONSTANT_NODES + 1)]),
        "depend on no picture",
    ),
    "nodes without end": (model([IDENTITY] * (MAX_NODES + 1)), "more than 20,000 nodes"),
    "weights that are declared": (model([IDENTITY], [declared(2**50)]), "elements in"),
    "weights of a negative size": (model([IDENTITY], [declared(-1)]), "elements in"),
    "weights elsewhere": (model([IDENTITY], [elsewhere()]), "another file"),
    "weights elsewhere in a node": (model([NODE("Constant", [], ["k"], value=elsewhere())]), "another file"),
    "a huge input": (model([IDENTITY], shape=("N", 2**20, 2**20)), "takes an input"),
    "nothing": (b"", "no graph"),
    "no protocol buffer": (b"no model at all", "no ONNX file"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_exported_model_holds_is_refused_at_once(name: str) -> None:
    content, words = HOSTILE[name]
    started = time.process_time()
    with pytest.raises(GraphError, match=words):
        check_graph(content)
    assert time.process_time() - started < 2


def test_functions_training_and_sparse_weights_are_refused() -> None:
    for change in ("functions", "training_info"):
        changed = onnx.load_model_from_string(model([IDENTITY]))
        getattr(changed, change).add()
        with pytest.raises(GraphError, match=change):
            check_graph(changed.SerializeToString())
    changed = onnx.load_model_from_string(model([IDENTITY]))
    changed.graph.sparse_initializer.add()
    with pytest.raises(GraphError, match="sparse"):
        check_graph(changed.SerializeToString())


@pytest.mark.parametrize(
    "operator", ["If", "Loop", "Scan", "SequenceMap", "RandomNormalLike", "Optional", "StringConcat"]
)
def test_operators_with_graphs_text_or_chance_are_not_known(operator: str) -> None:
    assert operator not in OPERATORS
    assert {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain} >= OPERATORS


def test_every_model_that_is_exported_passes(tiny_bundle: Path) -> None:
    for path in (*SHIPPED.rglob("*.onnx"), *tiny_bundle.rglob("*.onnx")):
        check_graph(path.read_bytes())


@given(st.binary(max_size=300), st.integers(0, 5000))
@settings(max_examples=150)
def test_any_bytes_are_a_model_or_an_error(noise: bytes, place: int) -> None:
    whole = (SHIPPED / "submodels" / "00_bedroom.onnx").read_bytes()
    for content in (noise, whole[:place], whole[:place] + noise + whole[place + len(noise) :]):
        try:
            check_graph(content)
        except GraphError:
            continue


def test_a_graph_before_the_last_one_is_looked_at_too() -> None:
    with pytest.raises(GraphError, match="Loop"):
        check_graph(HOSTILE["loop"][0] + model([IDENTITY]))
