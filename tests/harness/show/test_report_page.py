import itertools
import re
import statistics
from pathlib import Path

import pytest
from made_runs import ERROR, SHARE, made, swept
from parsed_page import Page
from PIL import Image
from scipy import stats

from harness.show import report_page, report_tables, sheet
from harness.show.report_facts import interrupted, warnings
from harness.show.report_figures import draw, pictures
from harness.study.results import find_runs, studies


def page(folder, *folders, **choice):
    return Page(written(folder / "page.html", folders, **choice))


def written(path, folders, **choice):
    notes = []
    grouped = studies(find_runs(folders), notes.append)
    said = [*notes, *warnings(grouped, interrupted(folders))]
    return report_page.write(path, grouped, said, report_tables.Choice(**choice)).read_text()


def rows(html):
    """The cells of every row of every table, without what is inside them."""
    found = [re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL) for row in re.findall(r"<tr.*?</tr>", html, re.DOTALL)]
    return [[" ".join(re.sub(r"<[^>]+>", "", cell).split()) for cell in row] for row in found]


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A page with everything: a sweep, a method with pictures, stand-in data, warnings, signs that HTML reads."""
    root = tmp_path_factory.mktemp("full")
    swept(root / "sweep", {(x, y): 0.3 + x / 50 + y for x in (0.2, 1, 16) for y in (0, 0.1)})
    for seed in (0, 1):
        triplet = made(
            root / f"triplet{seed}", seed, 0.4, {"loss.loss": "<b>&"}, ["loss=<b>&\"'"], code={"dirty": True}
        )
        (triplet / "pictures").mkdir()
        Image.new("RGB", (30, 10), "red").save(triplet / "pictures" / "retrievals_test.png")
        Image.new("RGB", (30, 10), "red").save(triplet / "pictures" / "retrievals_validation.png")
    digits = {"name": "rotated digits", "fingerprint": "d", "fixture": True}
    made(root / "digits", experiment="demo_regression", data=digits, overrides=["scale=fixture"])
    (root / "broken").mkdir()
    (root / "broken" / "config.yaml").write_text("seed: 3\n")
    return written(root / "page.html", [root])


def test_nothing_is_fetched_and_nothing_is_run(full):
    parsed = Page(full)
    for _, attributes in parsed.elements:
        for name in ("src", "href", "xlink:href", "data", "srcset", "action"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), value[:80]
        assert not any(name.startswith("on") for name in attributes)
    assert {tag for tag, _ in parsed.elements}.isdisjoint({"script", "iframe", "object", "embed", "base", "form"})
    assert "url(" not in full
    assert "@import" not in full
    (policy,) = [meta["content"] for meta in parsed.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")


def test_the_page_is_well_formed(full):
    parsed = Page(full)
    assert parsed.problems == []
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [a["href"][1:] for _, a in parsed.elements if (a.get("href") or "").startswith("#")]
    labels = [a["aria-labelledby"] for _, a in parsed.elements if "aria-labelledby" in a]
    assert links
    assert labels
    assert set(links + labels) <= set(ids)


def test_who_does_not_see_it_can_read_it(full):
    parsed = Page(full)
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(th.get("scope") in ("col", "row", "rowgroup") for th in parsed.all("th"))
    (picture,) = parsed.images("png")
    assert picture["alt"].startswith("Queries, evenly spread over the data")
    assert len(parsed.images("svg+xml")) == 4  # curves of both data sets, a map, one sensitivity
    assert all(len(image["alt"]) > 40 for image in parsed.all("img"))
    assert parsed.all("html") == [{"lang": "en"}]
    regions = [div for div in parsed.all("div") if "scroll" in div.get("class", "")]
    assert all(div["aria-label"] and div["tabindex"] == "0" for div in regions)


def test_every_colour_of_the_page_is_there_for_light_and_dark(full):
    used = set(re.findall(r"var\((--[a-z-]+)\)", full))
    light, dark, paper = (
        set(re.findall(r"(--[a-z-]+):", block)) for block in re.findall(r":root \{(.*?)\}", full, re.DOTALL)
    )
    assert used == light == dark == paper


def test_settings_are_a_row_each_where_that_is_narrower_and_fit_on_paper(tmp_path):
    for k in range(2):
        made(
            tmp_path / "wide" / f"{k}",
            settings={f"loss.{name}": f"{name}{k}" for name in "abc"},
            overrides=[f"loss={k}"],
        )
    for k in range(9):
        made(tmp_path / "long" / f"{k}", settings={"loss.a": k}, overrides=[f"loss.a={k}"])
    for k in range(9):
        settings = {f"loss.{name}": f"{name}{k}" for name in "abcdefghij"}
        made(tmp_path / "both" / f"{k}", settings=settings, overrides=[f"loss={k}"])
    wide, long, both = (
        report_tables.settings_tables(*studies(find_runs([tmp_path / x]))) for x in ("wide", "long", "both")
    )
    assert [(table.columns, [line.cells for line in table.lines]) for table in wide] == [
        (["setting", "loss=0", "loss=1"], [["loss.a", "a0", "a1"], ["loss.b", "b0", "b1"], ["loss.c", "c0", "c1"]])
    ]
    assert [(table.columns, table.lines[8].cells) for table in long] == [(["method", "loss.a"], ["loss.a=8", "8"])]
    assert [len(table.columns) - 1 for table in both] == [7, 2]
    assert ["loss.j", "j7", "j8"] in [line.cells for line in both[1].lines]
    (alone,) = studies(find_runs([tmp_path / "wide" / "0"]))
    assert report_tables.settings_tables(alone) == []


def test_what_comes_from_runs_is_escaped(full):
    assert "<b>" not in full
    assert "loss=<wbr>&lt;b&gt;&amp;&#34;&#39;" in full


def test_the_numbers_are_those_of_the_runs(tmp_path):
    values = [0.60, 0.62, 0.67]
    for seed, recall in enumerate(values):
        made(tmp_path / str(seed), seed, recall)
    html = written(tmp_path / "page.html", [tmp_path])
    half = stats.t.ppf(0.975, df=2) * statistics.stdev(values) / 3**0.5
    ours = [row for row in rows(html) if "last epoch" in row]
    assert ours == [["cub_rambo", "last epoch", "3", f"{100 * statistics.fmean(values):.1f} ± {100 * half:.1f}"]]
    assert f"{100 * half:.1f}" == "9.0"
    facts = Page(html).words("dd")
    assert "CUB-200-2011: test 5,924 images" in facts
    assert "0123456789ab" in facts
    assert "90 s for 3 runs" in facts
    assert "1.0 GiB of the process" in facts


def test_published_numbers_stand_beside_the_same_recipe_on_real_data_alone(tmp_path):
    made(tmp_path / "a" / "1")
    made(tmp_path / "b" / "1", overrides=["loss=triplet"])
    made(tmp_path / "c" / "1", data={"name": "CUB-200-2011", "fixture": True})
    entry = {"source": "table 3", "seeds": 3, "metrics": {"test/recall@1": 64.0}}
    for folder, stands in {"a": True, "b": False, "c": False}.items():
        html = written(tmp_path / "page.html", [tmp_path / folder], published={"cub_rambo": entry})
        found = [row for row in rows(html) if any("published" in cell for cell in row)]
        assert found == ([["cub_rambo", "published: table 3", "3", "64.0"]] if stands else [])


def test_the_banner_is_there_for_stand_in_data_alone(tmp_path):
    made(tmp_path / "real" / "a")
    made(tmp_path / "made_up" / "a", data={"name": "CUB-200-2011", "fixture": True}, overrides=["scale=fixture"])
    assert "numbers mean nothing" not in page(tmp_path, tmp_path / "real").text
    text = page(tmp_path, tmp_path / "made_up").text
    assert "these runs were made on tiny made-up data" in text
    assert "these numbers mean nothing." in text
    assert "some of these runs were made on tiny" in page(tmp_path, tmp_path / "real", tmp_path / "made_up").text


def test_sections_appear_where_the_runs_hold_what_they_need(full, tmp_path):
    one = page(tmp_path, made(tmp_path / "a"))
    assert one.words("h3") == ["What was run", "Results", "Figures", "Settings"]
    assert one.words("h2") == ["CUB-200-2011"]
    assert Page(full).words("h2") == ["Warnings", "rotated digits (stand-in data)", "CUB-200-2011"]
    assert Page(full).words("h3") == [
        "What was run", "Results", "Figures", "Settings",
        "What was run", "Results", "How sure are the differences?", "Figures", "Pictures from the runs", "Settings",
    ]  # fmt: skip


def test_the_record_of_curves_may_be_missing(tmp_path):
    (made(tmp_path / "a") / "metrics.jsonl").unlink()
    lone = page(tmp_path, tmp_path)
    assert "Figures" not in lone.words("h3")
    assert "a figure of CUB-200-2011 was left out" in lone.text


def test_warnings_name_what_to_beware_of(full, tmp_path):
    text = Page(full).text
    assert re.search(r"1 run left out, interrupted or still running: \S*broken\.", text)
    assert "CUB-200-2011: 2 of 14 runs were made with uncommitted changes" in text
    assert "CUB-200-2011: the runs were made with different revisions" in text
    assert "Warnings" not in page(tmp_path, made(tmp_path / "clean")).text
    made(tmp_path / "x" / "a", 0)
    made(tmp_path / "x" / "b", 1, overrides=["loss=triplet"], packages={"torch": "2.7.0"}, began={"python": "3.10"})
    said = page(tmp_path, tmp_path / "x").text
    assert "not all methods were run with the same seeds" in said
    assert "different versions of torch" in said
    assert "1 of 2 runs were resumed with other code, packages or hardware" in said


def test_versions_of_data_are_kept_apart_and_said(tmp_path):
    made(tmp_path / "a")
    made(tmp_path / "b", overrides=["loss=triplet"], data={"name": "CUB-200-2011", "fingerprint": "b" * 64})
    parsed = page(tmp_path, tmp_path)
    assert parsed.words("h2") == ["Warnings", "CUB-200-2011", "CUB-200-2011"]
    assert f"different versions of the data, each below: {'a' * 12}, {'b' * 12}" in parsed.text


def test_differences_are_put_in_words_with_the_best_first(tmp_path):
    for seed in (0, 1, 2):
        made(tmp_path / f"a{seed}", seed, 0.60 + seed / 100, overrides=["loss=recall"])
        made(tmp_path / f"b{seed}", seed, 0.50 + seed / 100 + seed**2 / 1000, overrides=["loss=triplet"])
        made(tmp_path / f"c{seed}", seed, 0.60 - (seed - 1) / 20, overrides=["loss=margin"])
    (study,) = studies(find_runs([tmp_path]))
    (first, equal), (second, worse) = (line.cells for line in report_tables.comparisons(study).lines)
    assert (first, second) == ("loss=margin", "loss=triplet")
    assert equal.startswith("no difference shown")
    assert worse.startswith("loss=recall is better by 9.8")  # 10, 10 - 0.1 and 10 - 0.4
    assert "loss=recall has the best mean" in page(tmp_path, tmp_path).text


def test_many_methods_are_shown_at_one_epoch_and_the_rest_below(tmp_path):
    numbers = {"test/recall@1": 0.5}
    for k in range(9):
        results = {name: {"epoch": 1, "metrics": numbers} for name in ("last", "untrained")}
        made(tmp_path / str(k), overrides=[f"loss.margin={k}"], results=results)
    parsed = page(tmp_path, tmp_path)
    assert "Epoch: last epoch." in parsed.text
    assert "Results at other epochs" in parsed.words("summary")
    assert "the 6 best of 9" not in parsed.text  # no pictures
    assert "The 7 best of 9 methods." in parsed.text


def test_pictures_say_what_they_show(tmp_path):
    folder = made(tmp_path / "a") / "pictures"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(folder / "novelty_test.png")
    Image.new("RGB", (4, 4)).save(folder / "unknown_kind.png")
    (folder / "notes.txt").write_text("no picture")
    (folder / "unknown_kind.svg").write_text("<svg/>")  # the same again
    found = pictures(*studies(find_runs([tmp_path])))
    assert [(kind, drawn[0].alt) for kind, drawn in found.items()] == [
        ("novelty", "Novelty. cub_rambo, seed 0, test."),
        ("unknown_kind", "Unknown kind. cub_rambo, seed 0."),
    ]


def test_a_search_that_left_the_test_split_alone_is_reported_on_validation(tmp_path):
    numbers = {"validation/recall@1": 0.5, "validation/recall@2": 0.75}
    for k in (1, 2, 3):
        made(tmp_path / str(k), settings={"loss.margin": k}, overrides=[f"loss.margin={k}"], metrics=numbers)
    parsed = page(tmp_path, tmp_path)
    assert "On the validation split" in parsed.text
    (study,) = studies(find_runs([tmp_path]))
    assert report_tables.results(study, report_tables.Choice(["last"])).columns[3:] == ["recall@1\u00a0↑", "recall@2"]
    assert [image["alt"][:33] for image in parsed.images("svg+xml")] == [
        "Lines of recall@1 on validation, %"[:33], "Curves of recall@1 on validation, "[:33],
    ]  # fmt: skip


def test_two_sweeps_of_one_study_get_names_of_their_own(tmp_path):
    for loss in ("recall", "smooth_ap"):
        for x in (1, 2, 4):
            made(
                tmp_path / f"{loss}{x}",
                settings={"loss.loss": loss, "loss.a": x},
                overrides=[f"loss={loss}", f"loss.a={x}"],
            )
    (study,) = studies(find_runs([tmp_path]))
    drawn, failures = draw(study, tmp_path, "cub", ".png")
    assert failures == []
    assert [one.path.name for one in drawn] == [
        "cub_curves.png", "cub_loss-a_cub-rambo-loss-recall_a_curve.png",
        "cub_loss-a_cub-rambo-loss-smooth-ap_a_curve.png",
    ]  # fmt: skip
    assert all(one.path.exists() for one in drawn)
    assert "of cub_rambo loss=smooth_ap" in drawn[2].caption


def test_equal_runs_make_equal_pages(tmp_path):
    swept(tmp_path / "runs", {(x, 0): 0.5 for x in (1, 2, 4)})
    first, second = (written(tmp_path / name, [tmp_path / "runs"]) for name in ("a.html", "b.html"))
    assert first == second


def test_what_has_no_mean_is_left_out_or_kept_apart_and_the_page_says_so(tmp_path):
    made(tmp_path / "x" / "a", 0, 0.25, settings={"metrics.map_at": 10})
    made(tmp_path / "x" / "b", 1, 0.75, settings={"metrics.map_at": 5})
    text = page(tmp_path, tmp_path / "x").text
    assert re.search(
        r"left out: \S*a, as the newer \S*b is cub_rambo, too, but with metrics.map_at=5 instead of 10", text
    )
    assert "75.0" in text
    assert "50.0" not in text
    made(tmp_path / "y" / "a", 0)
    made(tmp_path / "y" / "b", 1, settings={"loss.new": "value"})  # an option that the code gained
    assert page(tmp_path, tmp_path / "y").words("h2") == ["CUB-200-2011"]
    made(tmp_path / "z" / "a", 0)
    made(tmp_path / "z" / "b", 1, data={"name": "CUB-200-2011", "fingerprint": "b"})
    apart = page(tmp_path, tmp_path / "z")
    assert apart.words("h2") == ["Warnings", "CUB-200-2011", "CUB-200-2011"]
    assert "different versions of the data, each below" in apart.text


def test_a_bad_record_or_picture_costs_itself_alone(tmp_path):
    for seed in range(3):
        pictures = made(tmp_path / "x" / str(seed), seed, 0.5 + seed / 100) / "pictures"
        pictures.mkdir()
        Image.new("RGB", (4, 4)).save(pictures / "retrievals_test.png")
    (tmp_path / "x" / "0" / "pictures" / "broken_test.png").write_bytes(b"\x89PNG")
    (tmp_path / "x" / "1" / "metrics.jsonl").write_text('{"step": 1, "epo')
    (tmp_path / "x" / "2" / "metrics.jsonl").write_text("3\n")
    parsed = page(tmp_path, tmp_path / "x")
    assert len(parsed.images("svg+xml")) == 1  # the curve of the first
    assert len(parsed.images("png")) == 1
    for name in ("1/metrics.jsonl is truncated", "2/metrics.jsonl is not what a run writes", "broken_test.png cannot"):
        assert name in parsed.text


def test_plus_minus_is_explained_and_one_seed_has_none(tmp_path):
    made(tmp_path / "a" / "0", 0)
    assert "±" not in page(tmp_path, tmp_path / "a").text
    made(tmp_path / "a" / "1", 1, 0.7)
    assert "± half of the 95 % t-interval of the mean over seeds" in page(tmp_path, tmp_path / "a").text
    text = page(tmp_path, tmp_path / "a", spread="deviation").text
    assert "± the standard deviation over seeds" in text
    assert f"60.0 ± {100 * statistics.stdev([0.5, 0.7]):.1f}" in text


def test_metrics_are_shown_as_they_declare_and_undeclared_ones_as_they_are(tmp_path):
    numbers = {"test/recall@1": 0.5, "test/auc": 0.5, "test/queries_without_match": 3.0, "test/mae": 7.5}
    measures = {"recall@1": SHARE, "queries_without_match": {"kind": "count"}, "mae": ERROR}
    for seed in (0, 1):
        made(tmp_path / str(seed), seed, metrics=numbers, measures=measures)
    (study,) = studies(find_runs([tmp_path]))
    (shown,) = report_tables.results(study, report_tables.Choice(["last"])).lines
    assert shown.cells[3:] == ["50.0 ± 0.0", "0.500 ± 0.000", "3", "7.50 ± 0.00"]


def test_bad_input_is_answered_in_a_sentence(tmp_path, monkeypatch):
    run = made(tmp_path / "a")
    (run / "report.json").write_text('{"experiment": "x", "config": {}, "data": {}, "results": {}}')
    with pytest.raises(ValueError, match=r"a/report.json is not what a run writes \(no overrides\)"):
        find_runs([tmp_path])


def test_the_template_is_part_of_the_package():
    settings = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert '"harness.show" = ["templates/*"]' in settings
    assert sheet.template("report.html.j2").name == "report.html.j2"
