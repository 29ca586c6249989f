"""A terminal session as a picture: runs the program in a pseudo terminal, types, and draws the last screen as SVG.

    python tools/record_session.py --program target/release/rustorch-cli --out docs/images/session.svg --say "How do I save?" --say /exit

What is drawn is what the program wrote, character by character, read by a small terminal of our own (cursor, erasing, styles, wide
characters); the command at the top is the one that was run. Colours follow the reader's light or dark preference. Python 3.9 or newer on a
Unix, standard library only.
"""

import argparse
import codecs
import fcntl
import html
import os
import pathlib
import pty
import re
import select
import signal
import struct
import sys
import tempfile
import termios
import time
import unicodedata

COLUMNS, ROWS = 96, 120
CELL_WIDTH, LINE_HEIGHT, MARGIN, BAR = 8.4, 20, 16, 34
SEQUENCE = re.compile(r"\x1b(?:\[([?>=]?)([0-9;]*)([A-Za-z~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|([78=>c]))")
COLOURS = {31: "red", 32: "green", 33: "yellow", 34: "blue", 35: "magenta", 36: "cyan"}


class Screen:
    """Rows of cells, each a character with a style; a wide character leaves the cell behind it empty."""

    def __init__(self):
        self.rows, self.row, self.column, self.style, self.saved = [[]], 0, 0, (), (0, 0)

    def cells(self):
        while len(self.rows) <= self.row:
            self.rows.append([])
        return self.rows[self.row]

    def put(self, character):
        width = 2 if unicodedata.east_asian_width(character) in "WF" else 0 if unicodedata.combining(character) else 1
        if self.column + width > COLUMNS:
            self.row, self.column = self.row + 1, 0
        row = self.cells()
        row.extend([(" ", ())] * (self.column + width - len(row)))
        if width == 0:
            if self.column:
                before, style = row[self.column - 1]
                row[self.column - 1] = (before + character, style)
            return
        row[self.column] = (character, self.style)
        if width == 2:
            row[self.column + 1] = ("", self.style)
        self.column += width

    def write(self, text):
        """Draws what is complete; returns the beginning of a sequence that goes on."""
        at = 0
        while at < len(text):
            character = text[at]
            if character == "\x1b":
                match = SEQUENCE.match(text, at)
                if not match:
                    if len(text) - at < 32:
                        return text[at:]
                    raise SystemExit(f"a sequence that this terminal does not know: {text[at:at + 16]!r}")
                self.obey(match)
                at = match.end()
                continue
            at += 1
            if character == "\n":
                self.row += 1
                self.cells()
            elif character == "\r":
                self.column = 0
            elif character == "\b":
                self.column = max(0, self.column - 1)
            elif character == "\t":
                self.column = min(COLUMNS - 1, self.column // 8 * 8 + 8)
            elif character >= " ":
                self.put(character)
        return ""

    def obey(self, match):
        private, numbers, letter, short = match.groups()
        if short in ("7", "8"):
            if short == "7":
                self.saved = (self.row, self.column)
            else:
                self.row, self.column = self.saved
        if letter is None or private:
            return
        numbers = [int(number) if number else 0 for number in numbers.split(";")]
        first = numbers[0] or 1
        if letter == "m":
            for number in numbers:
                self.restyle(number)
        elif letter == "A":
            self.row = max(0, self.row - first)
        elif letter == "B":
            self.row += first
        elif letter == "C":
            self.column = min(COLUMNS - 1, self.column + first)
        elif letter == "D":
            self.column = max(0, self.column - first)
        elif letter == "G":
            self.column = first - 1
        elif letter == "H":
            self.row, self.column = first - 1, (numbers[1] if len(numbers) > 1 and numbers[1] else 1) - 1
        elif letter == "K":
            row = self.cells()
            if numbers[0] == 0:
                del row[self.column:]
            elif numbers[0] == 2:
                row.clear()
            else:
                row[: self.column] = [(" ", ())] * min(self.column, len(row))
        elif letter == "J":
            if numbers[0] == 0:
                del self.cells()[self.column:]
                del self.rows[self.row + 1:]
            else:
                self.rows, self.row, self.column = [[]], 0, 0
        elif letter not in "hlnctr":
            raise SystemExit(f"a sequence that this terminal does not know: {match.group(0)!r}")

    def restyle(self, number):
        style = set(self.style)
        if number == 0:
            style = set()
        elif number in (1, 2):
            style.add("bold" if number == 1 else "dim")
        elif number == 22:
            style -= {"bold", "dim"}
        elif 30 <= number <= 39:
            style -= set(COLOURS.values())
            style |= {COLOURS[number]} if number in COLOURS else set()
        self.style = tuple(sorted(style))

    def text(self):
        return "\n".join("".join(character for character, _ in row).rstrip() for row in self.rows)


class Session:
    """The program in a pseudo terminal."""

    def __init__(self, command, home, language):
        self.screen, self.rest = Screen(), ""
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUSTORCH_", "LC_", "NO_COLOR"))}
            os.execvpe(command[0], command, {**kept, "HOME": home, "TERM": "xterm-256color", "LANG": f"{language}.UTF-8"})
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))

    def read(self, seconds):
        """Draws what comes within the time; False at the end."""
        if not select.select([self.terminal], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.terminal, 65536)
        except OSError:
            return False
        if not data:
            return False
        text = self.decoder.decode(data)
        if "\x1b[6n" in text:
            os.write(self.terminal, f"\x1b[{self.screen.row + 1};{self.screen.column + 1}R".encode())
        self.rest = self.screen.write(self.rest + text)
        return True

    def until(self, wanted, seconds):
        """Waits until the last line begins with `wanted` and nothing follows for a moment."""
        end = time.monotonic() + seconds
        quiet = time.monotonic()
        while time.monotonic() < end:
            before = self.screen.text()
            if not self.read(0.1):
                return
            if self.screen.text() != before:
                quiet = time.monotonic()
            last = self.screen.text().rstrip("\n").split("\n")[-1]
            if last.strip() == wanted and time.monotonic() - quiet > 0.4:
                return
        raise SystemExit(f"no `{wanted}` after {seconds} s; the screen:\n{self.screen.text()}")

    def type(self, text):
        for character in text:
            os.write(self.terminal, character.encode())
            self.read(0.02)
        os.write(self.terminal, b"\r")

    def end(self, seconds):
        limit = time.monotonic() + seconds
        while self.read(0.1):
            if time.monotonic() > limit:
                os.kill(self.pid, signal.SIGKILL)
                raise SystemExit(f"the program did not end; the screen:\n{self.screen.text()}")
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if status:
            raise SystemExit(f"the program ended with {status}; the screen:\n{self.screen.text()}")


def runs(row):
    """Cells of one style that follow each other: first column, width, text, style. Narrow and wide characters part company."""
    found = []
    for column, (character, style) in enumerate(row):
        if character == "":
            continue
        width = 2 if column + 1 < len(row) and row[column + 1][0] == "" else 1
        if found and found[-1][3] == style and found[-1][4] == width and found[-1][0] + found[-1][1] == column:
            first, wide, text, *_ = found[-1]
            found[-1] = (first, wide + width, text + character, style, width)
        else:
            found.append((column, width, character, style, width))
    return [run for run in found if run[2].strip()]


def draw(title, rows):
    while rows and not any(character.strip() for character, _ in rows[-1]):
        rows.pop()
    width, height = COLUMNS * CELL_WIDTH + 2 * MARGIN, BAR + len(rows) * LINE_HEIGHT + MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" aria-label="{html.escape(title)}">',
        "<style>",
        "text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Noto Sans Mono CJK JP',monospace;fill:#24292f;white-space:pre}",
        ".paper{fill:#f6f8fa;stroke:#d0d7de}.title,.dim{fill:#57606a}.bold{font-weight:bold}",
        ".red{fill:#b3261e}.green{fill:#116329}.yellow{fill:#7d4e00}.blue{fill:#0550ae}.magenta{fill:#8250df}.cyan{fill:#1b6b78}",
        "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.paper{fill:#0d1117;stroke:#30363d}.title,.dim{fill:#9198a1}",
        ".red{fill:#ff7b72}.green{fill:#3fb950}.yellow{fill:#d29922}.blue{fill:#58a6ff}.magenta{fill:#bc8cff}.cyan{fill:#39c5cf}}",
        "</style>",
        f'<rect class="paper" x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="8"/>',
        *(f'<circle cx="{MARGIN + 6 + 18 * i}" cy="17" r="5" fill="{fill}"/>' for i, fill in enumerate(("#ff5f57", "#febc2e", "#28c840"))),
        f'<text class="title" x="{width / 2:.0f}" y="22" text-anchor="middle">{html.escape(title)}</text>',
    ]
    for number, row in enumerate(rows):
        y = BAR + number * LINE_HEIGHT + 15
        for first, wide, text, style, _ in runs(row):
            kind = f' class="{" ".join(style)}"' if style else ""
            out.append(
                f'<text{kind} x="{MARGIN + first * CELL_WIDTH:.1f}" y="{y}" textLength="{wide * CELL_WIDTH:.1f}" '
                f'lengthAdjust="spacingAndGlyphs">{html.escape(text)}</text>'
            )
    return "\n".join([*out, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/release/rustorch-cli")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--language", default="en", choices=("en", "ja"))
    parser.add_argument("--say", action="append", required=True, help="a line to type; the last one should end the program")
    parser.add_argument("--prompt", default="You>", help="what stands on the line when it is our turn")
    parser.add_argument("--out", type=pathlib.Path, help="the picture; without, the screen is printed as text")
    parser.add_argument("--seconds", type=float, default=60, help="longest wait for an answer")
    args = parser.parse_args()
    shown = ["rustorch-cli", "--model", args.model]
    command = [str(pathlib.Path(args.program).resolve()), *shown[1:]]
    with tempfile.TemporaryDirectory() as home:
        session = Session(command, home, {"en": "en_US", "ja": "ja_JP"}[args.language])
        for line in args.say:
            session.until(args.prompt, args.seconds)
            session.type(line)
        session.end(args.seconds)
    if args.out is None:
        sys.stdout.write(session.screen.text() + "\n")
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(draw("$ " + " ".join(shown), session.screen.rows), encoding="utf-8")
    print(f"{args.out}: {len(session.screen.rows)} lines")


if __name__ == "__main__":
    main()
