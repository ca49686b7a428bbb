"""Which parameters does code read? By the types: an attribute of what is a section of params.yaml, wherever it is."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

Leaf = tuple[type[BaseModel], str]


def sections_in(annotation: Any) -> set[type[BaseModel]]:
    """The sections in an annotation such as `tuple[ThickTask, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {found for part in get_args(annotation) for found in sections_in(part)}


def leaves(section: type[BaseModel], path: str = "") -> Iterator[tuple[str, Leaf]]:
    """The path of every value below a section, and the section of it that it is a field of."""
    for name, field in section.model_fields.items():
        below = sections_in(field.annotation)
        if not below:
            yield f"{path}{name}", (section, name)
        for part in below:
            yield from leaves(part, f"{path}{name}.")


class Reader:
    """Follows sections through a module's names: annotated arguments, and what is set from or loops over them."""

    def __init__(self, module: Path, sections: Mapping[str, type[BaseModel]]) -> None:
        """`sections` are the classes by their names."""
        self.sections, self.names = sections, dict[str, set[type[BaseModel]]]()
        self.nodes = list(ast.walk(ast.parse(module.read_text())))
        for _ in range(3):  # a name may be used above the line that sets it
            for node in self.nodes:
                self._learn(node)

    def _learn(self, node: ast.AST) -> None:
        if isinstance(node, ast.arg) and node.annotation:
            words = {name.id for name in ast.walk(node.annotation) if isinstance(name, ast.Name)}
            self._set(node.arg, {self.sections[word] for word in words & self.sections.keys()})
        elif isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            several = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
            for one, of in zip(target.elts, value.elts, strict=True) if several else [(target, value)]:
                self._set(one, self.kinds(of))
        elif isinstance(node, ast.For | ast.comprehension):
            self._set(node.target, self.kinds(node.iter))

    def _set(self, target: ast.AST | str, kinds: set[type[BaseModel]]) -> None:
        name = target.id if isinstance(target, ast.Name) else target
        if isinstance(name, str) and kinds:
            self.names[name] = self.names.get(name, set()) | kinds

    def kinds(self, node: ast.AST) -> set[type[BaseModel]]:
        """Which sections an expression may be; that of a tuple of sections is that of its elements."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, set())
        if isinstance(node, ast.Subscript):
            return self.kinds(node.value)
        if isinstance(node, ast.Attribute):
            fields = (kind.model_fields.get(node.attr) for kind in self.kinds(node.value))
            return {kind for field in fields if field for kind in sections_in(field.annotation)}
        return set()

    def reads(self) -> Iterator[Leaf]:
        """The fields that the module reads; with `**section.model_dump()` it hands on all of them, by name."""
        for node in self.nodes:
            if isinstance(node, ast.Attribute):
                yield from ((kind, node.attr) for kind in self.kinds(node.value))
            if isinstance(node, ast.keyword) and node.arg is None and isinstance(node.value, ast.Call):
                of = node.value.func
                if isinstance(of, ast.Attribute) and of.attr == "model_dump":
                    yield from (leaf for kind in self.kinds(of.value) for _, leaf in leaves(kind))


def unread(section: type[BaseModel], modules: Iterable[Path], sections: Mapping[str, type[BaseModel]]) -> list[str]:
    """The values of a section that no module reads, in the section itself or in one that it inherits them from."""
    read = {leaf for module in modules for leaf in Reader(module, sections).reads()}
    return [
        path
        for path, (owner, name) in leaves(section)
        if not any(name == field and issubclass(owner, kind) for kind, field in read)
    ]
