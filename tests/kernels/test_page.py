"""The shell of the lab's pages, in a real browser."""

import plotly.graph_objects as go
import pytest

from kernels import page

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture
def write(tmp_path):
    def write_(*sections, **options):
        path = tmp_path / "page.html"
        path.write_text(page.render("A title", "A lead.", sections, **options), encoding="utf-8")
        return path

    return write_


def chart(name):
    return page.figure(go.Figure(go.Scatter(x=[1, 2], y=[3, 5], name="tiled")), name, "two points")


def test_plotly_comes_once_and_only_where_there_is_a_figure(write):
    bare = write(page.Section("a", "A", page.paragraph("text"))).stat().st_size
    one = write(page.Section("a", "A", chart("one"))).stat().st_size
    two = write(page.Section("a", "A", chart("one") + chart("two"))).stat().st_size
    assert bare < 20_000
    assert one > 1_000_000
    assert two - one < 10_000


def test_what_comes_from_a_file_is_text(write, open_page):
    cells = page.table([EVIL], [[EVIL]], marks=[EVIL])
    figure = page.figure(go.Figure(go.Scatter(x=[1], y=[1], name=EVIL)), "f", EVIL)
    panels = page.choice("c", EVIL, [(EVIL, page.paragraph(EVIL)), ("b", figure)])
    shown = open_page(write(page.Section("a", EVIL, cells + panels)))
    assert shown.locator("h2").inner_text() == EVIL
    assert shown.locator("td").inner_text() == EVIL
    assert shown.locator("option").first.inner_text() == EVIL
    assert shown.locator("img").count() == 0  # and open_page fails at a dialogue


def test_a_script_that_render_did_not_put_there_is_not_run(write, open_page, browser):
    path = write(page.Section("a", "A", "<p>x</p>"), scripts=["document.title = 'ran'"])
    assert open_page(path).title() == "ran"
    intruder = "<script>document.documentElement.lang = 'xx'</script>"
    path.write_text(path.read_text().replace("<p>x</p>", intruder))
    context = browser.new_context()  # the browser does complain
    other = context.new_page()
    other.goto(path.as_uri())
    assert other.title() == "ran"
    assert other.locator("html").get_attribute("lang") == "en"
    context.close()


def test_no_button_sends_the_chart_away(write, open_page):
    shown = open_page(write(page.Section("a", "A", chart("one"))))
    shown.locator("#one").hover()
    buttons = shown.locator("#one .modebar-btn")
    titles = buttons.evaluate_all("all => all.map(b => b.dataset.title || b.ariaLabel)")
    assert "Zoom" in titles
    assert not [title for title in titles if "hare" in title or "loud" in title]


def test_a_choice_shows_one_panel_and_draws_what_was_hidden(write, open_page):
    panels = page.choice("c", "Pass", [("first", chart("one")), ("second", chart("two"))])
    shown = open_page(write(page.Section("a", "A", panels)))
    assert shown.locator(".js-plotly-plot").evaluate_all("all => all.map(e => e.id)") == ["one"]
    shown.locator("#c").select_option("second")
    assert not shown.locator("#one").is_visible()
    assert shown.locator("#two .main-svg").first.bounding_box()["width"] > 1000


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_text_stands_out_from_the_page(color_scheme, write, open_page):
    section = page.Section("a", "A", page.paragraph("text") + chart("one"))
    shown = open_page(write(section), color_scheme=color_scheme)
    paper = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    inks = [
        shown.evaluate("getComputedStyle(document.querySelector('p')).color"),
        shown.evaluate("getComputedStyle(document.querySelector('.xtick text')).fill"),
    ]
    assert (luminance(paper) > 0.5) == (color_scheme == "light")
    for ink in inks:
        darker, lighter = sorted([luminance(paper), luminance(ink)])
        assert (lighter + 0.05) / (darker + 0.05) > 4.5  # WCAG's contrast for text


def luminance(css):
    channels = [int(c) / 255 for c in css.removeprefix("rgb(").rstrip(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
