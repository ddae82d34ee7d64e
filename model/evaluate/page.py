"""A report as one HTML page that needs nothing else: tables, curves, and what was retrieved. Pure.

Curves are inline SVG, pictures are inline data; no script, no network.
"""

import base64
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

from model.evaluate.chart import GREY, Curve, chart
from model.evaluate.data_rows import DATA_METHODS, SHORTFALL, DataRow, row_texts
from model.evaluate.examples import Example, Shown
from model.evaluate.intervals import Interval
from model.evaluate.result_table import AgainstRidge, ResultRow, ResultTable, setting_summaries
from model.evaluate.scoring import MEASURES
from model.evaluate.stability import Stability

HEADINGS = {
    "loss": "loss",
    "r_at_1": "R@1",
    "r_at_5": "R@5",
    "mrr": "MRR",
    "map": "mAP",
    "ndcg": "NDCG",
}
"""Column headings of MEASURES."""
NEVER_CHARTED = ("theta",)
BOUNDS = ("random", "ceiling")


def page(
    title: str,
    facts: Mapping[str, str],
    tables: Sequence[ResultTable],
    training: Sequence[Curve] = (),
) -> str:
    """Return the whole page: facts, a summary of the settings, training curves, table by table."""
    head = f"<header><h1>{escape(title)}</h1>{_facts(facts)}</header>"
    parts = [head, _summary(tables)]
    if training:
        parts.append(_card("Training", chart(training, "outer step", "loss")))
    shown = [table for table in tables if table.rows or table.stability or table.data_rows]
    parts += [_contents(shown)] if len(shown) > 1 else []
    parts += [_table(table) for table in tables]
    return _HEAD.format(title=escape(title)) + "\n".join(parts) + "</main></body></html>\n"


def _card(heading: str, body: str, name: str = "") -> str:
    return f'<section id="{escape(name)}"><h2>{escape(heading)}</h2>{body}</section>'


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{escape(n)}</dt><dd>{escape(t)}</dd>" for n, t in facts.items())
    return f"<dl>{rows}</dl>"


def _contents(tables: Sequence[ResultTable]) -> str:
    links = "".join(f'<li><a href="#{escape(t.name)}">{escape(t.title)}</a></li>' for t in tables)
    return f"<nav><ol>{links}</ol></nav>"


def _summary(tables: Sequence[ResultTable]) -> str:
    rows = []
    for summary in setting_summaries(tables):
        for pairs, best in zip(summary.pairs, summary.best, strict=True):
            first = "" if pairs != summary.pairs[0] else escape(summary.setting)
            rows.append(f"<tr><th>{first}</th><td>{pairs}</td><td><b>{_number(best)}</b></td></tr>")
    if not rows:
        return ""
    head = "".join(f"<th>{h}</th>" for h in ("streams", "pairs", "R@1"))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    note = "<p class=note>What the gate publishes, by the best θ.</p>"
    return _card("Summary", table + note)


def _table(table: ResultTable) -> str:
    parts = []
    if table.rows:
        measured = f"{table.streams} streams; means and 95 % confidence intervals over streams."
        parts += [_by_pairs(table.rows), _recalls(table.rows), f"<p class=note>{measured}</p>"]
    if table.against_ridge:
        parts.append(_against_ridge(table.against_ridge))
    if table.stability:
        parts.append(_stability(table.stability))
    if table.data_rows:
        parts.append(_by_data(table.data_rows))
    parts += [f"<p class=note>{escape(note)}</p>" for note in table.notes]
    if table.examples:
        parts += ["<h3>What is retrieved</h3>", _examples(table.examples)]
    if table.rows:
        measures = f"<summary>Every measure</summary>{_measures(table.rows)}"
        parts.append(f"<details>{measures}</details>")
    return _card(table.title, "".join(parts), table.name)


def _by_pairs(rows: Sequence[ResultRow]) -> str:
    curves = []
    for name in dict.fromkeys(r.name for r in rows if r.figures.method not in NEVER_CHARTED):
        points = [(float(r.figures.pairs), r.r_at_1.mean) for r in rows if r.name == name]
        bound = name in BOUNDS
        curves.append(Curve(name, points, dashed=bound, colour=GREY if bound else None))
    return chart(curves, "support pairs", "R@1", log_x=True)


def _recalls(rows: Sequence[ResultRow]) -> str:
    """Return a table of R@1: methods down, numbers of pairs across."""
    sizes = list(dict.fromkeys(r.figures.pairs for r in rows))
    head = "".join(f"<th>{size} pairs</th>" for size in sizes)
    body = "".join(_recall_line(name, rows, sizes) for name in _names(rows))
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"


def _recall_line(name: str, rows: Sequence[ResultRow], sizes: Sequence[int]) -> str:
    found = {r.figures.pairs: r for r in rows if r.name == name}
    cells = [f"<td>{_interval(found[s].r_at_1) if s in found else ''}</td>" for s in sizes]
    strong = any(r.figures.method == "gated" for r in found.values())
    kind = " class=strong" if strong else ""
    return f"<tr{kind}><th>{escape(name)}</th>{''.join(cells)}</tr>"


def _measures(rows: Sequence[ResultRow]) -> str:
    head = "".join(f"<th>{escape(HEADINGS[m])}</th>" for m in MEASURES)
    lines = []
    for r in rows:
        cells = "".join(f"<td>{_interval(r.figures.measures[m])}</td>" for m in MEASURES)
        lines.append(f"<tr><td>{r.figures.pairs}</td><th>{escape(r.name)}</th>{cells}</tr>")
    return (
        f"<table><thead><tr><th>pairs</th><th>method</th>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _against_ridge(found: Sequence[AgainstRidge]) -> str:
    lines = "".join(
        f"<tr><td>{a.pairs}</td><th>{escape(a.theta)}</th><td>{_signed(a.r_at_1)}</td>"
        f"<td>{_signed(a.loss)}</td><td>{_mark(a.holds, 'as good', 'worse')}</td></tr>"
        for a in found
    )
    head = "".join(f"<th>{h}</th>" for h in ("pairs", "θ", "R@1", "loss", ""))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
    return f"<h3>What the gate lets through less ridge, paired by episode</h3>{table}"


def _stability(found: Sequence[Stability]) -> str:
    headings = (
        "learner",
        "steps",
        "extra",
        "episodes",
        "worse on support",
        "published worse than θ",
        "fallbacks",
        "worse without rolling back",
        "R@1",
        "R@1, extra steps",
    )
    head = "".join(f"<th>{h}</th>" for h in headings)
    lines = "".join(
        f"<tr><th>{escape(s.learner)}</th><td>{s.steps}</td><td>{s.extra_steps}</td>"
        f"<td>{s.episodes}</td><td>{s.worse_on_support}</td><td>{s.published_worse}</td>"
        f"<td>{s.fallbacks}</td><td>{s.blindly_worse}</td><td>{_interval(s.r_at_1)}</td>"
        f"<td>{_interval(s.r_at_1_extra)}</td></tr>"
        for s in found
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def _by_data(rows: Sequence[DataRow]) -> str:
    sizes = max((row.cells for row in rows), key=len)
    head = "".join(f"<th>{escape(h)}</th>" for h in ("θ", "", *DATA_METHODS.values(), SHORTFALL))
    lines = "".join(
        f"<tr><th>{escape(row.theta)}</th><th>{escape(row.data)}</th>"
        + "".join(f"<td>{escape(text)}</td>" for text in row_texts(row, len(sizes)))
        + "</tr>"
        for row in rows
    )
    pairs = " / ".join(str(cell.pairs) for cell in sizes)
    note = f"<p class=note>R@1 with {pairs} support pairs; the worst shortfall of a row.</p>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>{note}"


def _names(rows: Sequence[ResultRow]) -> Iterable[str]:
    return dict.fromkeys(r.name for r in rows)


def _interval(interval: Interval) -> str:
    half = (interval.high - interval.low) / 2
    return _number(interval.mean) + (f" <small>±{half:.3f}</small>" if half == half else "")


def _signed(interval: Interval) -> str:
    if not math.isfinite(interval.low):
        return f"{interval.mean:+.3f}"
    return f"{interval.mean:+.3f} <small>{interval.low:+.3f} to {interval.high:+.3f}</small>"


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _mark(good: bool, yes: str, no: str) -> str:
    return f'<span class="{"good" if good else "bad"}">{yes if good else no}</span>'


def _examples(examples: Sequence[Example]) -> str:
    methods = list(dict.fromkeys(method for e in examples for method in e.found))
    same = all(e.source == e.target for e in examples)
    head = "".join(f"<th>{escape(h)}</th>" for h in ("stream", "asked"))
    head += "" if same else "<th>right</th>"
    head += "".join(f"<th>{escape(m)}</th>" for m in methods)
    lines = []
    for e in examples:
        found = "".join(f"<td>{''.join(_found(e.found.get(m, ())))}</td>" for m in methods)
        right = "" if same else f"<td>{_shown(e.target)}</td>"
        cells = f"<th>{escape(e.stream)}</th><td>{_shown(e.source)}</td>{right}{found}"
        lines.append(f"<tr>{cells}</tr>")
    return (
        f'<table class="examples"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
        "<p class=note>The nearest candidates in order; the right one is marked.</p>"
    )


def _found(nearest: Sequence[tuple[Shown, bool]]) -> Iterator[str]:
    for shown, right in nearest:
        yield f'<span class="{"right" if right else "wrong"}">{_shown(shown)}</span>'


def _shown(shown: Shown) -> str:
    if isinstance(shown, str):
        return f'<b dir="auto">{escape(shown)}</b>'
    return f'<img alt="" src="data:{_type(shown.data)};base64,{_base64(shown.data)}">'


def _type(data: bytes) -> str:
    if data[:4] == b"RIFF":
        return "image/webp"
    return "image/png" if data[:4] == b"\x89PNG" else "image/jpeg"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>{title}</title><style>
:root {{ --ink: #1c2430; --pale: #687385; --line: #e4e8ee; --card: #fff; --ground: #f5f7fa;
  --good: #0b7a53; --bad: #b8324f; --strong: #eef7f2; --picture: #fff; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e6e9ef; --pale: #98a2b3; --line: #333c4a;
  --card: #1b212b; --ground: #12161d; --good: #4cc38a; --bad: #ff8095; --strong: #1d3029; }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--ink); margin: 0;
  background: var(--ground); }}
main {{ max-width: 82rem; margin: 2rem auto; padding: 0 1rem; }}
section {{ background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: .2rem 1.4rem 1.2rem; margin: 1.2rem 0; overflow-x: auto; }}
h1 {{ font-size: 1.5rem; margin: 0 0 .6rem; }} h2 {{ font-size: 1.12rem; }}
h3 {{ font-size: .95rem; margin: 1.6rem 0 .4rem; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0; }}
dt, .note, .pale, small {{ color: var(--pale); }} dd {{ margin: 0; overflow-wrap: anywhere; }}
.note {{ font-size: .85rem; margin: .5rem 0; overflow-wrap: anywhere; }}
nav {{ columns: 2; font-size: .9rem; }} nav ol {{ margin: 0; padding-left: 1.4rem; }}
a {{ color: inherit; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }}
td, th {{ padding: .22rem .6rem; text-align: right; white-space: nowrap; }}
th {{ font-weight: 500; }} thead th {{ color: var(--pale); font-size: .82rem; }}
tbody th {{ text-align: left; }} tbody tr {{ border-top: 1px solid var(--line); }}
tr.strong {{ background: var(--strong); }} tr.strong th {{ font-weight: 650; }}
.good {{ color: var(--good); }} .bad {{ color: var(--bad); }} span.good, span.bad {{
  font-size: .82rem; }}
figure {{ margin: .4rem 0 1rem; }} svg {{ max-width: 56rem; width: 100%; height: auto; }}
svg text {{ font: 12px system-ui, sans-serif; fill: var(--pale); }}
svg .grid {{ stroke: var(--line); }} svg .x {{ text-anchor: middle; }}
svg .y {{ text-anchor: end; }}
details {{ margin-top: 1rem; }} summary {{ cursor: pointer; color: var(--pale); }}
.examples td, .examples th {{ text-align: left; padding: .3rem .9rem .3rem 0; }}
.examples b {{ font-weight: 500; }}
img {{ width: 36px; height: 36px; image-rendering: auto; vertical-align: middle;
  background: var(--picture); border-radius: 4px; }}
.right, .wrong {{ display: inline-block; padding: 3px; margin-right: .3rem; border-radius: 7px;
  border: 2px solid transparent; }}
.right {{ border-color: var(--good); }}
</style></head><body><main>
"""
