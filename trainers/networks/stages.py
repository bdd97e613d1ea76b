"""Stages: the parts of a network from input to features; each can be frozen and has its own learning rate."""

from torch import nn

# A network with fewer outermost parts is divided further: a stem, a body and a norm are too coarse.
_FEWEST = 4
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

Stage = tuple[str, ...]  # names of modules and parameters
Part = nn.Module | nn.Parameter


def split_stages(network: nn.Module) -> tuple[Stage, ...]:
    """Return the stages of a network, in the order in which its parts are registered.

    The parts are the network's children that have parameters. While there are fewer than four, the one with the most
    parameters is replaced by its own children. A part that only normalises, or a parameter outside of these modules,
    joins the part before it.
    """
    parts = _children("", network)
    while len(stages := _joined(parts)) < _FEWEST:
        inside = [(name, part) for name, part in parts if isinstance(part, nn.Module) and _has_modules(part)]
        if not inside:
            break
        largest = max(inside, key=lambda item: _size(item[1]))
        position = parts.index(largest)
        parts[position : position + 1] = _children(*largest)
    return stages


def belongs(name: str, stage: Stage) -> bool:
    """Return whether a parameter or module, by its name in the network, is part of a stage."""
    return any(name == part or name.startswith(f"{part}.") for part in stage)


def _children(prefix: str, module: nn.Module) -> list[tuple[str, Part]]:
    start = f"{prefix}." if prefix else ""
    direct = [(start + name, parameter) for name, parameter in module.named_parameters(recurse=False)]
    children = module.named_children()
    return [*direct, *((start + name, child) for name, child in children if any(True for _ in child.parameters()))]


def _joined(parts: list[tuple[str, Part]]) -> tuple[Stage, ...]:
    stages: list[list[str]] = []
    loose: list[str] = []  # before the first module
    for name, part in parts:
        if isinstance(part, nn.Module) and not _only_normalises(part):
            stages.append([*loose, name])
            loose = []
        else:
            (stages[-1] if stages else loose).append(name)
    return tuple(tuple(stage) for stage in stages)


def _has_modules(part: nn.Module) -> bool:
    return any(True for child in part.children() for _ in child.parameters())


def _size(part: Part) -> int:
    return part.numel() if isinstance(part, nn.Parameter) else sum(value.numel() for value in part.parameters())


def _only_normalises(part: nn.Module) -> bool:
    return all(isinstance(module, _NORMS) for module in part.modules() if list(module.parameters(recurse=False)))
