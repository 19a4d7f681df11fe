"""Editor-ready text: what is taken apart as the corpora are can be put together again."""

import keyword
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import tiny

from eelib import paths
from eelib.data.lexing import EOL, tokenize_source
from eelib.server.cursor import read_from, within
from eelib.server.literals import literal
from eelib.server.reading import read_source
from eelib.server.text import EditorText, StopSequences, source_of

LIBRARY = Path(sysconfig.get_path("stdlib"))
PYTHON = [
    LIBRARY / name
    for name in ("json/decoder.py", "bisect.py", "queue.py", "shlex.py", "textwrap.py", "wave.py")
]
JAVA = """package a.b;
import java.util.*;
import static a.B.c;
@Deprecated
public final class Box<T extends Comparable<T>> implements Iterable<T> {
    private static final int[] SIZES = {1, 2, 3};
    private final Map<String, List<T>> items = new HashMap<>();
    /** Text with { a brace. */
    @Override
    public T get(int i, String... names) throws IOException {
        for (int j = 0; j < SIZES.length; j++) { i += -j >>> 2; }
        for (T item : all()) if (item != null && !done) return item;
        try { run(() -> { x++; return y ? a : -b; }); } catch (A | B e) { throw e; } finally { close(); }
        char c = 'x', d = '\\n';
        String s = "a b, c" + names[0] + (String) other;
        do { i--; } while (i > 0);
        switch (i) { case 1: break; default: i = ~i << 1; }
        List<List<T>> nested = Collections.<List<T>>emptyList();
        Object o = new Object() { int a; };
        return items.get(String::valueOf);
    }
}
"""


def editors(code: list[str]) -> list[str]:
    """Tokens with their literals as an editor has them: an empty string is one whether its text was hidden or not."""
    return [literal(token) for token in code]


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.name)
def test_python_files_parse_again_to_the_same_tokens(path):
    code = tokenize_source(path.read_text(), "python")
    assert editors(tokenize_source(source_of(code, "python"), "python")) == editors(code)


def test_java_parses_again_to_the_same_tokens():
    code = tokenize_source(JAVA, "java")
    assert editors(tokenize_source(source_of(code, "java"), "java")) == editors(code)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["python", "java"])
def test_the_laptop_profiles_test_files_parse_again_to_the_same_tokens(language):
    from eelib.data.corpus import read_corpus

    found = sorted((paths.results() / "laptop/stages/corpus").glob(f"{language}-*/corpus.parquet"))
    if not found:
        pytest.skip("the laptop profile's corpora have not been made: ./run_all.sh --only 01 makes them")
    files = [file for file in read_corpus(found[-1]) if file.split == "test"]
    assert len(files) > 100
    for file in files:
        again = tokenize_source(source_of(file.code, language), language)
        assert editors(again) == editors(file.code), file.id


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True).filter(
    lambda name: not keyword.iskeyword(name)
)
atoms = st.one_of(names, st.sampled_from(["<NUM_LIT>", "<NUM_LIT:1>", '"<STR_LIT>"', "'<STR_LIT:utf-8>'"]))
expressions = st.recursive(
    atoms.map(lambda atom: [atom]),
    lambda inner: st.one_of(
        st.tuples(
            inner, st.sampled_from(["+", "-", "*", "/", "//", "**", "%", "==", "<", "and", "in"]), inner
        ).map(lambda parts: [*parts[0], parts[1], *parts[2]]),
        st.tuples(st.sampled_from(["-", "~", "not"]), inner).map(
            lambda parts: ["(", parts[0], *parts[1], ")"]
        ),
        st.tuples(names, st.lists(inner, max_size=2)).map(
            lambda parts: [parts[0], "(", *[t for item in parts[1] for t in [*item, ","]], ")"]
        ),
        st.tuples(names, inner, inner).map(lambda p: [p[0], "[", *p[1], ":", *p[2], "]"]),
        st.tuples(names, names).map(lambda parts: [parts[0], ".", parts[1]]),
        st.tuples(names, names, inner).map(lambda p: [p[0], "(", "*", p[1], ",", p[1], "=", *p[2], ")"]),
    ),
    max_leaves=8,
)


@given(expressions)
@settings(max_examples=300, deadline=None)
def test_expressions_parse_again_to_the_same_tokens(code):
    code = ["x", "=", *code]
    assert editors(tokenize_source(source_of(code, "python"), "python")) == editors(code)


def test_python_reads_as_python():
    code = (
        "class A ( B ) : <EOL> def f ( self , * args , key = - <NUM_LIT:1> ) : <EOL> if key [ : <NUM_LIT:2> ] == "
        "{ } : <EOL> return self . g ( args ) ** <NUM_LIT> <EOL> else : <EOL> pass <EOL> @ property <EOL> def g ( self ) : "
        '<EOL> return "<STR_LIT:utf-8>" % u"<STR_LIT>" <EOL> class C : <EOL> x = <NUM_LIT:1>'
    )
    assert source_of(code.split(), "python") == (
        "class A(B):\n    def f(self, *args, key=-1):\n        if key[:2] == {}:\n            return self.g(args) ** 0\n"
        "        else:\n            pass\n    @property\n    def g(self):\n"
        '        return "utf-8" % u""\nclass C:\n    x = 1'
    )


def test_java_reads_as_java():
    code = tokenize_source(
        "class A{int f(int i){if(i>0){i++;}else{return -i;}for(int j=0;j<i;j++)g(a[j]);}}", "java"
    )
    assert source_of(code, "java") == (
        "class A {\n    int f(int i) {\n        if (i > 0) {\n            i++;\n        } else {\n            return -i;\n"
        "        }\n        for (int j = 0; j < i; j++) g(a[j]);\n    }\n}"
    )


@pytest.mark.parametrize(
    ("token", "text"),
    [
        ('"<STR_LIT>"', '""'),
        ("'<STR_LIT:utf-8>'", "'utf-8'"),
        ('ur"""<STR_LIT:aU+0020bU+002C>"""', 'ur"""a b,"""'),
        ("<NUM_LIT>", "0"),
        ("<NUM_LIT:1.5>", "1.5"),
        ("'<CHAR_LIT>'", "' '"),
        ('"<STR_L', ""),
        ("<NUM", ""),
        ("name", "name"),
        ("<", "<"),
    ],
)
def test_placeholders_become_literals(token, text):
    assert literal(token) == text


@pytest.mark.parametrize(
    ("source", "code", "text"),
    [
        ("x", ["=", "y"], " = y"),
        ("x ", ["=", "y"], "= y"),
        ("f(", ["y", ")"], "y)"),
        ("if a:", [EOL, "b"], "\n    b"),
        ("if a:\n", ["b", EOL, "c"], "    b\n    c"),
        ("if a:\n\t", ["b", EOL, "c"], "b\n\tc"),
        ("if a:\n  if b:\n    pass\n  ", ["else", ":", EOL, "c"], "else:\n    c"),
        ("def f():\n    return x\n", ["def", "g"], "def g"),
        ("class A:\n    def f(self):\n        x = 1\n", ["def", "g"], "    def g"),
        ("try:\n    x\nexcept E:\n    pass", [EOL, "finally", ":"], "\nfinally:"),
        ("f(a,", [EOL, "b", ")", EOL, "c"], "\n    b)\nc"),
        ("x = 1  # why", ["y"], "\ny"),
        ("    x = (1\n  y", ["="], " ="),
        ("x = 1 + \\\n", ["y"], "y"),
    ],
)
def test_python_goes_on_where_the_source_ends(source, code, text):
    after = read_source(source, "python").after
    assert "".join(map(after.feed, code)) == text


@pytest.mark.parametrize(
    ("source", "code", "text"),
    [
        ("class A {", ["int", "x", ";", "}"], "\n    int x;\n}"),
        ("class A {\n  int x;\n  void f() {\n", ["g", "(", ")", ";", "}", "}"], "    g();\n  }\n}"),
        ("class A {\n\t", ["int", "x", ";", "int"], "int x;\n\tint"),
        ("f(a", [",", "b", ")", ";"], ", b);"),
        ("// why", ["x"], "\nx"),
    ],
)
def test_java_goes_on_where_the_source_ends(source, code, text):
    after = read_source(source, "java").after
    assert "".join(map(after.feed, code)) == text


@pytest.mark.parametrize(
    ("source", "ids", "text"),
    [
        ("    return ", " n", "n"),  # the blank is the user's
        ("import ", " os", "os"),
        ("x = not ", " y", "y"),
        ("self.assert", "_sql ( '<STR_LIT>' )", "_sql('')"),  # a name, though it begins as a keyword
        ("self.import", " = x", " = x"),
        ("x = is", "_open ( )", "_open()"),
        ("f(x", " ) ) y", ")"),  # the second bracket closes nothing that is open here
    ],
)
def test_python_at_common_cursors(source, ids, text):
    assert written(source, ids, "python") == text


@pytest.mark.parametrize(
    ("source", "ids", "text"),
    [
        ("x = new ArrayList<>", " ( ) ;", "();"),
        ("return ", " n ;", "n;"),
        ("Map<String, List<T>>", " [ ] m", "[] m"),
        ("if (a < b) { c = a > ", " ( b ) ;", "(b);"),
        ("class A {\n  void f() {\n", " } } } int", "  }\n}"),
    ],
)
def test_java_at_common_cursors(source, ids, text):
    assert written(source, ids, "java") == text


def written(source: str, code: str, language: str) -> str:
    """What an editor gets where the model writes these code tokens after the source; without a blank before it, the first
    one goes on with the source's last."""
    return EditorText(tiny().tokenizer, read_source(source, language).after)._write(code.split(" "))


@pytest.mark.parametrize("language", ["python", "java"])
def test_a_source_ends_within_a_string_or_a_comment_or_not(language):
    comment = {"python": "#", "java": "//"}[language]
    for source in ("x = 'a", 'f("', f"x {comment} why", '"""doc\n', '"""a\n"b"\n', "'\\'", f"{comment} 'a"):
        assert within(source, language), source
    for source in ("", "x", "x = 'a'", f"x {comment} it's\n", '"""doc"""', "'a\n", "'\\''", "''", '"a" + '):
        assert not within(source, language), source
    assert within("/* a\n * b", "java") and not within("/* ' */ x", "java")


def test_the_end_of_a_source_is_read_from_a_line_outside_strings_and_moves_in_steps():
    lines = [f"a{i} = {i:03d}\n" for i in range(100, 200)]  # eleven characters each
    source = "".join(lines)
    starts = [read_from(source[:end], "python", 200) for end in range(200, len(source))]
    assert starts == sorted(starts) and len(set(starts)) == -(-(len(source) - 1 - 200) // 50) + 1
    assert all(start == 0 or source[start - 1] == "\n" for start in starts)
    assert all(end - start <= 200 for end, start in zip(range(200, len(source)), starts, strict=True))
    long = "x\n" * 10 + '"""' + "a\n" * 60 + '"""\n' + "y\n" * 60
    assert long[read_from(long, "python", 200) :].strip("y\n") == ""
    assert read_from("." * 300, "python", 200) == 100, "a line of its own length is cut"


@given(st.text(alphabet="#'\"\\/*\n a", max_size=40), st.sampled_from(["python", "java"]), st.integers(1, 30))
@settings(max_examples=300, deadline=None)
def test_any_source_is_cut_to_what_is_read(source, language, most):
    start = read_from(source, language, most)
    assert 0 <= start <= len(source) and len(source) - start <= most


def test_python_that_stops_at_the_start_of_a_line_ends_in_eol():
    assert read_source("x = 1\n", "python").code == ["x", "=", "<NUM_LIT:1>", EOL]
    assert read_source("x = 1", "python").code[-1] == "<NUM_LIT:1>"
    assert read_source("x = \\\n", "python").code == ["x", "="]
    assert read_source("# only\n", "python").code == []
    assert read_source("int x;\n", "java").code == ["int", "x", ";"]


@pytest.mark.parametrize("language", ["python", "java"])
def test_any_beginning_of_a_file_can_be_completed(language):
    source = JAVA if language == "java" else PYTHON[1].read_text()[:3000]
    for end in range(len(source)):
        after = read_source(source[:end], language).after
        for token in ("x", "(", EOL, "else", "}", ")", '"<STR_LIT>"'):
            assert EOL not in after.feed(token)


@given(st.text(max_size=60), st.sampled_from(["python", "java"]))
@settings(max_examples=200, deadline=None)
def test_any_text_can_be_completed(source, language):
    read = read_source(source, language)
    assert all(read.code) and isinstance(read.after.feed("x"), str)


@given(st.lists(st.integers(0, 4095), max_size=40), st.sampled_from(["x = ", "def f(pa", "if a:\n", ""]))
@settings(max_examples=100, deadline=None)
def test_any_tokens_give_the_same_text_in_pieces_and_no_marker(ids, source):
    def text():
        return EditorText(tiny().tokenizer, read_source(source, "python").after)

    streamed, whole = text(), text()
    pieces = "".join(map(streamed.push, ids)) + streamed.finish()
    whole._ids = ids
    assert pieces == whole.finish()
    assert EOL not in pieces


def test_a_name_that_the_source_broke_off_goes_on():
    tokenizer = tiny().tokenizer
    written = EditorText(tokenizer, read_source("def read(self, pa", "python").after)
    (rest,) = [i for i in range(4096) if tokenizer.convert_ids_to_tokens(i) == "th"]
    pieces = [written.push(rest), written.push(tokenizer(")", add_special_tokens=False).input_ids[0])]
    assert "".join(pieces) + written.finish() == "th)"


def test_stop_sequences_hold_back_what_may_become_one():
    stop = StopSequences(["\n\n", "END"])
    assert [stop.push(piece) for piece in ("a\n", "b", "E", "N", "X", "\n", "\nc")] == [
        "a",
        "\nb",
        "",
        "",
        "ENX",
        "",
        "",
    ]
    assert stop.found
    stop = StopSequences(["END"])
    assert stop.push("xE") + stop.finish() == "xE"
