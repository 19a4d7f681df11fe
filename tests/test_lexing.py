"""Tokens of Java and Python, against hand-computed lists and against what CodeXGLUE's own records look like."""

import pytest

from eelib.data.lexing import EOL, tokenize_source


def tokens(source: str, language: str) -> str:
    return " ".join(tokenize_source(source, language))


def lines(source: str) -> list[str]:
    """Tokens of Python, one string a line."""
    return [line.strip() for line in tokens(source, "python").split(EOL)]


# --- the shape of CodeXGLUE's records: each snippet is one, or the beginning or end of one, with a source that gives it ---

JAVA_RECORD = (
    "import java . util . * ; import java . io . * ; @ interface A { } @ interface B { }",
    """\
import java.util.*;
import java.io.*;

@interface A {}  // an annotation
@interface B {}
""",
)
JAVA_BODY = (
    "super ( ) ; this . datepatterns = datepatterns == null ? null : datepatterns . clone ( ) ;",
    "super();\n/* a copy */ this.datepatterns = datepatterns==null ? null : datepatterns.clone();",
)
PYTHON_RECORD = (
    (
        "from collections import namedtuple <EOL> from ... util import ordered <EOL> from . import defaults <EOL> Revert = "
        'namedtuple ( "<STR_LIT>" , [ \'<STR_LIT>\' , \'<STR_LIT>\' , \'<STR_LIT>\' ] ) <EOL> """<STR_LIT>""" <EOL> '
        "class Detector ( ordered . HistoricalMap ) :"
    ),
    '''\
from collections import namedtuple
from ...util import ordered
from . import defaults

# What a revert is.
Revert = namedtuple("Revert", ['checksum', 'reverteds', 'reverted_to'])
"""
Represents a revert event.
"""

class Detector(ordered.HistoricalMap):
    """Detects reverts."""
''',
)
PYTHON_2_RECORD = (
    (
        "retVal = False <EOL> try : <EOL> retVal = cmd . Cmd . onecmd ( self , s ) <EOL> except Exception , e : <EOL> "
        "logging . error ( e ) <EOL> return retVal"
    ),
    """\
        retVal = False
        try:
           retVal = cmd.Cmd.onecmd(self,s)
        except Exception, e:
           #import traceback
           logging.error(e)

        return retVal
""",
)


@pytest.mark.parametrize(
    ("language", "record", "source"),
    [
        ("java", *JAVA_RECORD),
        ("java", *JAVA_BODY),
        ("python", *PYTHON_RECORD),
        ("python", *PYTHON_2_RECORD),
    ],
)
def test_a_source_becomes_codexglues_record(language, record, source):
    assert tokens(source, language).startswith(record)


# --- Java ---


def test_java_by_hand():
    source = """\
package a.b;
/** Documentation. */
public class Box<T extends Number> {
    int[] sizes = new int[3]; // three
    void put(String... names) throws E { sizes[0] += names.length; }
}
"""
    assert tokens(source, "java") == (
        "package a . b ; public class Box < T extends Number > { int [ ] sizes = new int [ <NUM_LIT:3> ] ; "
        "void put ( String ... names ) throws E { sizes [ <NUM_LIT:0> ] += names . length ; } }"
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('"UTF-8"', '"<STR_LIT:UTF-8>"'),  # one of the 200 frequent strings
        ('"Some text, quoted"', '"<STR_LIT>"'),
        ('""', '"<STR_LIT>"'),
        ('", "', '"<STR_LIT:U+002CU+0020>"'),
        ('" - "', '"<STR_LIT:U+0020-U+0020>"'),
        ('"// no comment"', '"<STR_LIT>"'),
        ("'a'", "'<CHAR_LIT:a>'"),  # one of the 30 frequent characters
        ("' '", "'<CHAR_LIT:U+0020>'"),
        ("'q'", "'<CHAR_LIT>'"),
        (r"'\n'", r"'<STR_LIT:\n>'"),  # two characters of source: CodeXGLUE takes them for a string
        (r"'\u0041'", "'<STR_LIT>'"),
        ("0", "<NUM_LIT:0>"),
        ("0x00", "<NUM_LIT:0x00>"),
        ("1L", "<NUM_LIT:1L>"),
        ("0.0f", "<NUM_LIT:0.0f>"),
        ("0x1F", "<NUM_LIT>"),
        ("0777", "<NUM_LIT>"),
        ("1.5e-3", "<NUM_LIT>"),
        ("-1", "- <NUM_LIT:1>"),
        ("true", "true"),
        ("null", "null"),
    ],
)
def test_java_literals(source, expected):
    assert tokens(f"x = {source};", "java") == f"x = {expected} ;"


def test_java_has_no_shift_operators_but_their_assignments():
    # So write CodeXGLUE's records, whose lexer leaves `>>` to the parser, which must tell it from two closing brackets.
    assert tokens("x = a >> b >>> c << d;", "java") == "x = a > > b > > > c << d ;"
    assert tokens("a >>= 1; b >>>= 1;", "java") == "a >>= <NUM_LIT:1> ; b >>>= <NUM_LIT:1> ;"
    assert tokens("List<List<A>> x;", "java") == "List < List < A > > x ;"


def test_java_has_no_line_ends():
    assert EOL not in tokenize_source("class A {\n\n  int x;\n}\n", "java")


# --- Python ---


def test_python_by_hand():
    source = '''\
#!/usr/bin/env python
"""Documentation
over two lines."""
import os, sys  # the usual


@wraps(f)
def area(r, *args, **kw):
    # The formula.
    if r is not None and r != 0:
        return 3.14159 * r ** 2

    return {"a": [r], }
'''
    assert lines(source) == [
        '"""<STR_LIT>"""',
        "import os , sys",
        "@ wraps ( f )",
        "def area ( r , * args , ** kw ) :",
        "if r is not None and r != <NUM_LIT:0> :",
        "return <NUM_LIT> * r ** <NUM_LIT:2>",
        'return { "<STR_LIT:a>" : [ r ] , }',
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("'utf-8'", "'<STR_LIT:utf-8>'"),
        ('"utf-8"', '"<STR_LIT:utf-8>"'),
        ("'a'", "'<STR_LIT:a>'"),  # Python has no characters
        ("'~'", "'<STR_LIT>'"),
        ("''", "'<STR_LIT>'"),
        ("' '", "'<STR_LIT:U+0020>'"),
        ("u'name'", "u'<STR_LIT:name>'"),
        (r"r'\d+'", "r'<STR_LIT>'"),
        ("'''name'''", "'''<STR_LIT:name>'''"),
        ("f'{x} # no comment'", "f'<STR_LIT>'"),
        ("'it' 'is'", "'<STR_LIT>' '<STR_LIT>'"),
        ("0", "<NUM_LIT:0>"),
        ("1.0", "<NUM_LIT:1.0>"),
        ("1.", "<NUM_LIT:1.>"),
        ("0xFF", "<NUM_LIT>"),
        ("3j", "<NUM_LIT>"),
        ("True", "True"),
    ],
)
def test_python_literals(source, expected):
    assert tokens(f"x = {source}\n", "python") == f"x = {expected}"


def test_python_2_parses():
    source = """\
print "hello", x
print >>log, `x.y` + `1`
exec code in scope
raise ValueError, "bad"
if a <> b: pass
def f((a, b), c): return 0777L
"""
    assert lines(source) == [
        'print "<STR_LIT:hello>" , x',
        "print >> log , ` x . y ` + ` <NUM_LIT:1> `",
        "exec code in scope",
        'raise ValueError , "<STR_LIT>"',
        "if a <> b : pass",
        "def f ( ( a , b ) , c ) : return <NUM_LIT>",
    ]


def test_dots_of_relative_imports_come_in_threes():
    assert lines("from .. import a\nfrom ...b import c\nfrom ....d import e\n") == [
        "from . . import a",
        "from ... b import c",
        "from ... . d import e",
    ]


def test_a_backslash_joins_lines_and_leaves_no_token():
    assert lines("x = a + \\\n    b\ny = 1 \\\n  \\\n  + 2\n") == [
        "x = a + b",
        "y = <NUM_LIT:1> + <NUM_LIT:2>",
    ]
    # One inside a comment joins nothing.
    assert lines("x = a  # to be continued \\\ny = b\n") == ["x = a", "y = b"]


def test_lines_end_inside_brackets_but_not_inside_strings():
    assert lines('f(a,\n  b  # why\n)\nx = """one\n\ntwo""" + y\n') == [
        "f ( a ,",
        "b",
        ")",
        'x = """<STR_LIT>""" + y',
    ]


def test_lines_without_code_have_no_end():
    assert tokenize_source("", "python") == tokenize_source("# only a comment\n\n", "python") == []
    assert lines("\n\nx\n\n# between\n\n\ty  \r\n\r\n") == ["x", "y"]


# --- both ---


def test_what_does_not_parse_still_gives_tokens():
    assert tokens("class A { int x = ; } }", "java") == "class A { int x = ; } }"
    assert lines('x = "open\ny = 1\n')[-1] == "y = <NUM_LIT:1>"


@pytest.mark.parametrize("language", ["java", "python"])
def test_no_token_holds_whitespace(language):
    source = "x = 'é ü' + \"a\\tb\" ;\n\u00a0y\u2003=\u3000'a b' ;\f z = is not\tq ; '''a\nb''' \ud800"
    found = tokenize_source(source, language)
    assert len(found) > 10
    assert all(token.split() == [token] for token in found)
