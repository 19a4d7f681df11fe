"""The study's graph for a reader: as text, and as a drawing."""

from eelib.study.graph import NODES
from eelib.study.notebooks import notebooks


def described() -> str:
    """The graph as text: a paragraph a node."""
    paragraphs = []
    for node in NODES.values():
        function = f"{node.function.__module__}.{node.function.__name__}"
        sources = {
            name: source.node
            + "".join(f", {axis} {value}" for axis, value in source.at.items())
            + (f", every {source.over}" if source.over else "")
            for name, source in node.inputs.items()
        }
        lines = [
            f"{node.name}  (notebook {node.notebook}{', timed' if node.timed else ''})",
            f"  by    {function}",
            f"  for   every {', '.join(node.axes)}",
            *[f"  from  {name}: {source}" for name, source in sources.items()],
            *([f"  by profile fields  {', '.join(node.fields)}"] if node.fields else []),
        ]
        paragraphs.append("\n".join(line for line in lines if line.strip()))
    return "\n\n".join(paragraphs)


def drawn() -> str:
    """The graph as a Mermaid diagram, a box a notebook."""
    lines = ["flowchart LR"]
    for number, notebook in notebooks().items():
        of_it = [node.name for node in NODES.values() if node.notebook == number]
        if of_it:
            lines += [f'  subgraph "{notebook.stem}"', *[f"    {name}" for name in of_it], "  end"]
    edges = {(source.node, node.name): None for node in NODES.values() for source in node.inputs.values()}
    return "\n".join([*lines, *[f"  {source} --> {name}" for source, name in edges]])
