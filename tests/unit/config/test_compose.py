from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import compose
from proxy.config.problems import ConfigError, Place, Problem
from proxy.config.tree import ListNode, MapNode, Node, ScalarNode
from tests.unit.config.reading import read, told

C_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@pytest.fixture(autouse=True, params=[yaml.SafeLoader, C_PARSER], ids=["python", "c"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers of pyyaml: the wheel for a platform may lack the faster one."""
    monkeypatch.setattr(compose, "_PARSER", request.param)


def tree(text: str) -> tuple[Node, list[str]]:
    """Return the tree of `text` and the problems that did not end it."""
    problems: list[Problem] = []
    return compose.read_tree(text, "f", problems), [str(problem) for problem in problems]


def ended(text: str) -> list[str]:
    """Return the problems of a text that has no tree."""
    with pytest.raises(ConfigError) as raised:
        compose.read_tree(text, "f", [])
    return [str(problem) for problem in raised.value.problems]


def entry(node: Node, *keys: str) -> Node:
    """Return what stands under `keys`."""
    for key in keys:
        assert isinstance(node, MapNode)
        node = node.entries[key].value
    return node


def test_every_value_and_key_knows_its_line_and_column() -> None:
    root, _ = tree("a: 1\nb:\n  - x\n  - c: 'é'\n    d: \"q\"\n")

    assert isinstance(root, MapNode)
    assert root.place == Place("f", 1, 1)
    assert root.entries["b"].place == Place("f", 2, 1)
    items = root.entries["b"].value
    assert isinstance(items, ListNode)
    assert items.items[0] == ScalarNode("x", Place("f", 3, 5), plain=True)
    assert entry(items.items[1], "c") == ScalarNode("é", Place("f", 4, 8))
    assert entry(items.items[1], "d") == ScalarNode("q", Place("f", 5, 8))


def test_words_keep_their_text_whatever_yaml_makes_of_them() -> None:
    root, problems = tree("on: [off, yes, 8:30, 0x10, ~, null, 1_000]\n1: 2\n")

    assert problems == []
    items = entry(root, "on")
    assert isinstance(items, ListNode)
    texts = [item.text for item in items.items if isinstance(item, ScalarNode)]
    assert texts == ["off", "yes", "8:30", "0x10", "~", "null", "1_000"]
    assert entry(root, "1") == ScalarNode("2", Place("f", 2, 4), plain=True)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "null"),
        ("~", "null"),
        ("Null", "null"),
        ("true", "boolean"),
        ("FALSE", "boolean"),
        ("0", "number"),
        ("-12", "number"),
        ("0o17", "number"),
        ("0xff", "number"),
        ("1.5", "number"),
        (".5", "number"),
        ("1e3", "number"),
        (".inf", "number"),
        (".NaN", "number"),
        ("yes", "string"),
        ("off", "string"),
        ("1_000", "string"),
        ("8:30", "string"),
        (".", "string"),
        ("nUll", "string"),
    ],
)
def test_unquoted_words_are_typed_as_yaml_1_2_does(text: str, name: str) -> None:
    plain = ScalarNode(text, Place("f", 1, 1), plain=True)
    assert plain.type_of(text) == name
    assert ScalarNode(text, Place("f", 1, 1)).type_of(text) == "string"


def test_a_duplicate_key_is_told_with_both_places_and_the_first_stays() -> None:
    root, problems = tree("a: 1\nb: 2\na: 3\n")

    assert problems == ["f:3:1: duplicate key 'a'; the first one is at f:1:1"]
    assert entry(root, "a") == ScalarNode("1", Place("f", 1, 4), plain=True)


def test_an_alias_repeats_the_anchored_value_with_its_own_place() -> None:
    root, problems = tree("a: &x [1]\nb: *x\n")

    assert problems == []
    assert entry(root, "b") is entry(root, "a")


def test_merge_keys_bring_what_the_mapping_does_not_say() -> None:
    root, problems = tree(
        "one: &one {a: 1, b: 1}\ntwo: &two {b: 2, c: 2, d: 2}\nm: {d: 3, <<: [*one, *two], e: 3}\n"
    )

    assert problems == []
    merged = entry(root, "m")
    assert isinstance(merged, MapNode)
    values = {
        key: each.value.text
        for key, each in merged.entries.items()
        if isinstance(each.value, ScalarNode)
    }
    assert values == {"a": "1", "b": "1", "c": "2", "d": "3", "e": "3"}
    assert entry(root, "m", "c").place == Place("f", 2, 21)


def test_a_merged_configuration_works_as_a_whole() -> None:
    config = read(
        "routes:\n"
        "  a: &base\n    upstream: https://a.example.com\n    timeouts: {connect: 5s}\n"
        "  b:\n    <<: *base\n    path: /b\n"
    )

    assert config.routes[1].timeouts.connect == 5.0
    assert str(config.routes[1].first.upstream) == "https://a.example.com"


def test_only_mappings_are_merged() -> None:
    _, problems = tree("a: &a 1\nb: {<<: *a}\nc: {<<: [*a]}\n")

    message = "'<<' merges mappings; write <<: *anchor, or a list of those"
    assert problems == [f"f:1:4: {message}"] * 2


def test_one_merge_key_is_enough() -> None:
    _, problems = tree("a: &a {b: 1}\nc: &c {d: 1}\ne: {<<: *a, f: 1, <<: *c}\n")

    assert problems == ["f:3:19: a second '<<'; write <<: [*first, *second] once"]


def test_a_quoted_merge_key_is_an_ordinary_key() -> None:
    root, _ = tree("a: {'<<': 1}\n")

    assert entry(root, "a", "<<") == ScalarNode("1", Place("f", 1, 11), plain=True)


def test_keys_must_be_words() -> None:
    _, problems = tree("? [a, b]\n: 1\n? {c: d}\n: 2\n")

    assert problems == ["f:1:3: a key must be one word", "f:3:3: a key must be one word"]


@pytest.mark.parametrize("tag", ["!!str", "!custom", "!!python/object/apply:os.system", "!"])
def test_tags_are_refused_and_never_constructed(tag: str) -> None:
    _, problems = tree(f"a: {tag} 1\nb: 2\n")

    assert len(problems) == 1
    assert problems[0].startswith("f:1:4: tags have no meaning here; remove '")


@pytest.mark.parametrize(
    "text", ["", "\n", "# only a comment\n", "---\n", "--- ~\n...\n", "null\n"]
)
def test_an_empty_document_says_what_it_needs(text: str) -> None:
    assert ended(text) == ["f:1:1: the document is empty; it needs at least 'routes:'"]


def test_a_second_document_is_refused() -> None:
    assert ended("a: 1\n---\nb: 2\n") == ["f:2:1: only one document is allowed; remove this '---'"]


def test_a_document_may_begin_and_end_with_its_marks() -> None:
    root, _ = tree("---\na: 1\n...\n")

    assert entry(root, "a") == ScalarNode("1", Place("f", 2, 4), plain=True)


@pytest.mark.parametrize(
    ("text", "place", "mend"),
    [
        ("a:\n\tb: 1\n", "f:2:1", "; indent with spaces, not with tabs"),
        (
            "host: *.x.y\n",
            "f:1:8",
            '; write a value that begins with * in quotes: "*.example.com"',
        ),
        ("a: @x\n", "f:1:4", "; write a value that begins with @ in quotes"),
        ("a: `x\n", "f:1:4", "; write a value that begins with ` in quotes"),
        ("a: %x\n", "f:1:4", "; write a value that begins with % in quotes"),
        (
            "a: {b: ${C}}\n",
            "f:1:9",
            "; inside { } and [ ] write a value with ${...} in quotes",
        ),
        (
            "a: [${C:-x}]\n",
            "f:1:6",
            "; inside { } and [ ] write a value with ${...} in quotes",
        ),
        (
            "a: b: c\n",
            "f:1:5",
            "; check the indentation, and write a value that holds ': ' in quotes",
        ),
        (
            "a: 1\n b: 2\n",
            "f:2:3",
            "; check the indentation, and write a value that holds ': ' in quotes",
        ),
        (
            "- a\nb: c\n",
            "f:2:1",
            "; check the indentation, quotes and brackets here and in the line before",
        ),
    ],
)
def test_a_syntax_error_has_its_place_and_a_mend(text: str, place: str, mend: str) -> None:
    (line,) = ended(text)

    assert line.startswith(f"{place}: not valid YAML: ")
    assert line.endswith(mend)


@pytest.mark.parametrize("text", ["a: [1,\n", "a: 'x\n", "a: {b\n", "a: &\n", "a: !<\n"])
def test_an_unfinished_text_is_a_problem_not_a_traceback(text: str) -> None:
    (line,) = ended(text)

    assert ": not valid YAML: " in line


@pytest.mark.parametrize(
    ("character", "name"), [("\x07", "U+0007"), ("\x00", "U+0000"), ("\udcff", "U+DCFF")]
)
def test_a_character_outside_yaml_is_named_with_its_place(character: str, name: str) -> None:
    assert ended(f"a: 1\nb: x{character}\n") == [
        f"f:2:5: the character {name} is not allowed in YAML; remove it"
    ]


def test_an_unknown_anchor_is_refused_with_the_likely_slip() -> None:
    assert ended("host: *internal\n") == [
        (
            "f:1:7: *internal repeats a value marked &internal, and there is none before it; "
            "write a value that begins with * in quotes"
        )
    ]


def test_a_value_cannot_repeat_itself() -> None:
    assert ended("a: &x [1, *x]\n") == ["f:1:11: *x stands inside the value that it repeats"]


def test_what_was_found_before_the_end_is_told_too() -> None:
    assert ended("a: 1\na: 2\nb: *c\n")[0] == (
        "f:2:1: duplicate key 'a'; the first one is at f:1:1"
    )


def nested(levels: int) -> str:
    return "a: " + "[" * levels + "]" * levels + "\n"


def test_nesting_is_bounded() -> None:
    # The outer mapping is level 0, so that its value is level 1.
    assert tree(nested(compose.DEEPEST))[1] == []
    assert ended(nested(compose.DEEPEST + 1)) == [
        f"f:1:{4 + compose.DEEPEST}: nested deeper than {compose.DEEPEST} levels"
    ]
    assert ended(nested(100_000))


def test_aliases_that_multiply_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]

    (line,) = ended("\n".join(lines))

    assert line.endswith("values once aliases are followed; use fewer")


def test_the_bound_on_values_counts_keys_lists_and_aliases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Mapping, key, list, two items, key, alias of a list with two items: 1+1+3+1+3.
    text = "a: &x [1, 2]\nb: *x\n"
    monkeypatch.setattr(compose, "MOST_VALUES", 9)
    assert tree(text)[1] == []
    monkeypatch.setattr(compose, "MOST_VALUES", 8)
    assert ended(text) == ["f:2:4: more than 8 values once aliases are followed; use fewer"]


@given(st.text(alphabet="ab:- \n[]{},&*#'\"!|>%@`\t?<~1"))
def test_any_text_becomes_a_tree_or_problems(text: str) -> None:
    lines = told(text)
    assert all(line.startswith("f:") for line in lines)
