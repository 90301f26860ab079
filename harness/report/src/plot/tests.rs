//! Tests of the drawings.

use super::super::look::Look;
use super::super::model::Level;
use super::*;

fn plot(form: Form) -> Plot {
    let point = |x: f64, y: f64| Point { x, y, low: y - 0.1, high: y + 0.1 };
    Plot {
        id: "p".into(),
        title: "a < b".into(),
        caption: "c".into(),
        x_label: "bytes seen".into(),
        y_label: "bits per byte".into(),
        log_x: true,
        log_y: false,
        form,
        series: vec![Series {
            label: "bim".into(),
            look: Look::of("bim"),
            points: vec![point(1e3, 4.0), point(1e5, 2.2)],
        }],
        frontier: Vec::new(),
        level: Some(Level { label: "entropy floor".into(), y: 2.0 }),
    }
}

fn whole(drawing: &str) {
    assert!(!drawing.contains("NaN") && !drawing.contains("inf"), "{drawing}");
    for element in ["g", "svg", "text", "div"] {
        let (open, close) =
            (drawing.matches(&format!("<{element}")).count(), drawing.matches(&format!("</{element}>")).count());
        assert!(element == "g" || open == close, "{element}: {open} {close}\n{drawing}");
    }
}

#[test]
fn a_drawing_has_title_line_band_level_and_its_name_at_the_end() {
    let drawing = svg(&plot(Form::Lines));
    whole(&drawing);
    for part in [
        "<title id=\"p-wide-title\">a &lt; b</title>",
        "class=\"band\"",
        "class=\"level\"",
        "entropy floor",
        ">100k<",
        "<g class=\"k-bim\"><path class=\"lead\"",
        "xmlns=",
    ] {
        assert!(drawing.contains(part), "{part} in\n{drawing}");
    }
    let page = html(&plot(Form::Lines));
    assert!(page.contains("plot wide") && page.contains("plot narrow") && !page.contains("<style"), "{page}");
}

/// A floor far below the curves would leave them a sliver of the drawing.
#[test]
fn a_level_far_away_does_not_squeeze_the_curves() {
    let mut far = plot(Form::Lines);
    far.level = Some(Level { label: "entropy floor".into(), y: 0.2 });
    let drawing = svg(&far);
    assert!(drawing.contains("↓ entropy floor: 0.200") && !drawing.contains("class=\"level\""), "{drawing}");
    assert_eq!(ranges(&far).1, ranges(&Plot { level: None, ..far.clone() }).1);
}

#[test]
fn many_lines_are_panels_and_few_have_bands() {
    let mut many = plot(Form::Panels);
    many.series = (0..12).map(|i| Series { label: format!("m{i}"), ..many.series[0].clone() }).collect();
    let page = html(&many);
    whole(&page);
    assert_eq!((page.matches("<svg").count(), page.matches("class=\"ghost\"").count()), (12, 1));
    assert_eq!(page.matches("<use href=\"#p-all\"/>").count(), 11);
    let sheet = svg(&many);
    whole(&sheet);
    assert_eq!((sheet.matches("<svg").count(), sheet.matches("class=\"band\"").count()), (1, 12));
    many.form = Form::Lines;
    let lines = svg(&many);
    assert!(
        !lines.contains("class=\"band\"") && lines.matches("class=\"bar\"").count() == 12,
        "twelve bands hide each other"
    );
    assert_eq!(lines.matches("stroke-dasharray=\"7 4\"").count(), 3, "lines of one colour have dashes of their own");
}

#[test]
fn points_have_their_names_beside_them_and_a_front() {
    let mut p = plot(Form::Points);
    p.level = None;
    let of = |kind: &str, x: f64, y: f64| Series {
        label: kind.into(),
        look: Look::of(kind),
        points: vec![Point { x, y, low: y - 0.1, high: y + 0.1 }],
    };
    p.series = vec![of("bim", 1.0, 3.0), of("lstm", 30.0, 2.0), of("rnn", 31.0, 2.01), of("cnn", 1000.0, 1.0)];
    p.frontier = vec![[1.0, 3.0], [30.0, 2.0], [1000.0, 1.0]];
    let drawing = svg(&p);
    whole(&drawing);
    assert_eq!((drawing.matches("class=\"name\"").count(), drawing.matches("class=\"front\"").count()), (4, 1));
    // of many, those on the front have names
    let mut many = p.clone();
    many.series.extend((0..20).map(|i| of("rnn", 50.0 + f64::from(i), 5.0)));
    let drawing = svg(&many);
    assert_eq!((drawing.matches("class=\"name\"").count(), drawing.matches("class=\"dot\"").count()), (3, 24));
    // one value alone is drawn too
    p.series.truncate(1);
    p.frontier.clear();
    p.log_x = false;
    whole(&svg(&p));
}
