//! What grids expand to.

use super::super::Kind;
use super::*;

fn lines(yaml: &str, arguments: &str) -> Vec<String> {
    let (cells, _, _dir) = cells_of(&[("grid.yaml", yaml)], &selection(arguments));
    cells.unwrap_or_else(|e| panic!("{e}")).iter().map(line).collect()
}

/// Cells as `model=value,…` of their sweep points.
fn points(sweep: &str, arguments: &str) -> Vec<String> {
    let yaml = format!(
        "experiment: x\ntasks: [{{kind: t}}, {{kind: u}}]\nmodels: [{{kind: m, only: [t]}}, {{kind: n, only: [t, u]}}]\n\
         seeds: 7\nsweep: {sweep}\n"
    );
    let (cells, _, _dir) = cells_of(&[("grid.yaml", &yaml)], &selection(arguments));
    let show = |cell: &RawCell| {
        let point: Vec<String> = cell.sweep_point.iter().map(|(path, value)| format!("{path}={value}")).collect();
        format!("{}/{} {}", cell.task_name(), cell.model_name(), point.join(" "))
    };
    cells.unwrap_or_else(|e| panic!("{e}")).iter().map(show).collect()
}

#[test]
fn each_layer_overrides_those_below() {
    // One key `v` per tree, set by every layer; the layers are taken away from the top one by one.
    let layers = [
        ("--set", "9"),
        ("sweep: {model.train.v: [8]}\n", "8"),
        ("scales.models.m.tasks.t", "7b"),
        ("scales.models.m", "7"),
        ("scales.model", "6b"),
        ("scales.tasks.t", "6"),
        ("scales.task", "5b"),
        ("scales.train", "5"),
        ("model.tasks.t", "4"),
        ("model", "3"),
        ("task", "2"),
        ("train", "1"),
    ];
    for top in 0..layers.len() {
        let on = |name: &str, text: &str| {
            let at = layers.iter().position(|(layer, _)| *layer == name).unwrap();
            if at >= top { text.replace('@', layers[at].1) } else { String::new() }
        };
        let yaml = format!(
            "experiment: x\ntask: {{kind: t{}}}\nmodels: [{{kind: m{}, tasks: {{t: {{{}}}}}}}]\n{}{}\
             scales: {{mini: {{{}{}{}{} models: {{m: {{{} tasks: {{t: {{{}}}}}}}}}}}}}\n",
            on("task", ", train: {v: @}"),
            on("model", ", train: {v: @}"),
            on("model.tasks.t", "train: {v: @}"),
            on("train", "train: {v: @}\n"),
            on("sweep: {model.train.v: [8]}\n", "sweep: {model.train.v: [8]}\n"),
            on("scales.train", "train: {v: @},"),
            on("scales.task", "task: {train: {v: @}},"),
            on("scales.tasks.t", "tasks: {t: {train: {v: @}}},"),
            on("scales.model", "model: {train: {v: @}},"),
            on("scales.models.m", "train: {v: @},"),
            on("scales.models.m.tasks.t", "train: {v: @}"),
        );
        let expected = format!("t/m/1 {{}} {{}} {{v: {}}}", layers[top].1);
        assert_eq!(lines(&yaml, &on("--set", "--set train.v=@")), [expected], "{yaml}");
    }
}

#[test]
fn keys_of_tasks_and_models_have_the_same_order_of_layers() {
    let yaml = "experiment: x\n\
                tasks: [{kind: t, a: 1, b: 1, c: 1, d: 1}, {kind: u, a: 1}]\n\
                models: [{kind: m, a: 1, b: 1, c: 1, d: 1, tasks: {t: {b: 2, c: 2, d: 2, n: {x: 1, y: 1}}}}]\n\
                scales:\n  mini:\n    task: {b: 3, c: 3, d: 3}\n    tasks: {t: {c: 4, d: 4}}\n    \
                model: {c: 3, d: 3}\n    models: {m: {d: 4, n: {y: 2}}}\n  none: {}\n";
    assert_eq!(
        lines(yaml, "--set t.d=5"),
        [
            "t/m/1 {a: 1, b: 3, c: 4, d: 5} {a: 1, b: 2, c: 3, d: 4, n: {x: 1, y: 2}} {}",
            "u/m/1 {a: 1, b: 3, c: 3, d: 3} {a: 1, b: 1, c: 3, d: 4, n: {y: 2}} {}",
        ]
    );
    assert_eq!(lines(yaml, "--scale none")[1], "u/m/1 {a: 1} {a: 1, b: 1, c: 1, d: 1} {}");
}

#[test]
fn products_multiply_only_what_they_concern() {
    assert_eq!(
        points("{m.w: [1, 2], train.l: [a, b]}", ""),
        [
            "t/m m.w=1 train.l=a",
            "t/m m.w=1 train.l=b",
            "t/m m.w=2 train.l=a",
            "t/m m.w=2 train.l=b",
            "t/n train.l=a",
            "t/n train.l=b",
            "u/n train.l=a",
            "u/n train.l=b",
        ]
    );
    assert_eq!(points("{u.w: [1, 2]}", ""), ["t/m ", "t/n ", "u/n u.w=1", "u/n u.w=2"]);
}

#[test]
fn zips_walk_in_step() {
    assert_eq!(
        points("{zip: {m.w: [1, 2], m.d: [4, 3], n.w: [5, 6]}, m.x: [{y: 1}]}", ""),
        [
            "t/m m.w=1 m.d=4 m.x={y: 1}",
            "t/m m.w=2 m.d=3 m.x={y: 1}",
            "t/n n.w=5",
            "t/n n.w=6",
            "u/n n.w=5",
            "u/n n.w=6"
        ]
    );
    assert_eq!(points("{zip: [{m.w: [1]}, {n.w: [2]}]}", ""), ["t/m m.w=1", "t/n n.w=2", "u/n n.w=2"]);
}

#[test]
fn included_points_stand_beside_the_product() {
    assert_eq!(
        points("{m.w: [1], include: [{m.w: 2, m.d: 3}, {model.z: 1, task: u}, {m.w: 1}]}", ""),
        ["t/m m.w=1", "t/m m.w=2 m.d=3", "t/n ", "u/n ", "u/n model.z=1"]
    );
}

#[test]
fn excluded_cells_meet_all_conditions_of_a_rule() {
    assert_eq!(
        points("{train.l: [0.5, 1], exclude: [{model: n, train.l: 5e-1}, {task: [u, t], train.l: 1, model: m}]}", ""),
        ["t/m train.l=0.5", "t/n train.l=1", "u/n train.l=1"]
    );
    // A rule about one seed leaves the others.
    let yaml =
        "experiment: x\ntask: {kind: t}\nmodels: [m]\nseeds: [1, 2, 3]\nsweep: {exclude: [{model: m, seed: 2}]}\n";
    assert_eq!(lines(yaml, ""), ["t/m/1 {} {} {}", "t/m/3 {} {} {}"]);
}

#[test]
fn a_set_value_ends_the_sweep_of_its_path() {
    assert_eq!(points("{train.l: [1, 2], m.w: [3, 4]}", "--set train.l=9"), ["t/m m.w=3", "t/m m.w=4", "t/n ", "u/n "]);
}

#[test]
fn only_keeps_what_meets_all_conditions() {
    let only = |expression: &str| points("{m.w: [0.5, 2]}", &format!("--only {expression}"));
    assert_eq!(only("model=m, m.w=5e-1"), ["t/m m.w=0.5"]);
    assert_eq!(only("model!=m"), ["t/n ", "u/n "]);
    assert_eq!(only("m.w!=2"), ["t/m m.w=0.5", "t/n ", "u/n "]);
    assert_eq!(only("m.w=0.5|2"), ["t/m m.w=0.5", "t/m m.w=2"]);
    assert_eq!(only("kind=u|m,seed=7"), ["t/m m.w=0.5", "t/m m.w=2", "u/n "]);
}

#[test]
fn seeds_come_from_the_file_the_scale_or_the_command_line() {
    let yaml = "experiment: x\ntask: t\nmodels: [m]\nseeds: [3, 1]\nscales: {mini: {seeds: 1_000}, big: {}}\n";
    let seeds = |arguments: &str| -> Vec<u64> {
        let (cells, _, _dir) = cells_of(&[("grid.yaml", yaml)], &selection(arguments));
        cells.unwrap().iter().map(|cell| cell.seed).collect()
    };
    assert_eq!(seeds(""), [1000]);
    assert_eq!(seeds("--scale big"), [3, 1]);
    assert_eq!(seeds("--set seeds=[5, 6]"), [5, 6]);
    assert_eq!(seeds("--set seeds=5 --set seeds=6"), [6]);
}

#[test]
fn an_extending_file_wins() {
    let base = "experiment: base\ntask: {kind: t, a: 1}\nmodels: [m, n]\ntrain: {steps: 1, clip: 1}\n\
                scales: {mini: {tasks: {t: {a: 2}, other: {a: 3}}, models: {n: {w: 1}}}}\nseeds: 4\n";
    let top = "extends: base.yaml\nexperiment: top\nmodels: [m]\ntrain: {steps: 2}\nseeds: null\n";
    let further = "extends: top.yaml\ntasks: [{kind: u}]\n";
    let run = |files: &[(&str, &str)]| -> Vec<String> {
        let (cells, _, _dir) = cells_of(files, &selection(""));
        cells.unwrap().iter().map(line).collect()
    };
    assert_eq!(run(&[("top.yaml", top), ("base.yaml", base)]), ["t/m/1 {a: 2} {} {steps: 2, clip: 1}"]);
    let files = [("further.yaml", further), ("top.yaml", top), ("base.yaml", base)];
    assert_eq!(run(&files), ["u/m/1 {} {} {steps: 2, clip: 1}"]);
}

/// The example in the documentation of the language, with the file that it extends.
fn example() -> [(&'static str, String); 2] {
    let (_, yaml) = include_str!("../lib.rs").split_once("//! ```yaml\n").unwrap();
    let yaml = yaml.split("//! ```").next().unwrap().lines().map(|line| &line[4..]).collect::<Vec<_>>().join("\n");
    [("example.yaml", yaml), ("common.yaml", "train: {streams: 8, clip: 1.5}\n".to_owned())]
}

fn example_cells(arguments: &str) -> (Vec<RawCell>, Sources) {
    let files = example();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let (cells, sources, _dir) = cells_of(&files, &selection(arguments));
    (cells.unwrap_or_else(|e| panic!("{e}")), sources)
}

#[test]
fn the_documented_example_means_what_it_says() {
    let (cells, _) = example_cells("");
    // bim: (3 λ × 2 clip × 2 zipped + 1 included) per task, less λ = 1 on language; small_lstm and mamba: 2 clips.
    let count =
        |task: &str, model: &str| cells.iter().filter(|c| c.task_name() == task && c.model_name() == model).count();
    assert_eq!(["bim", "mamba"].map(|model| count("language", model)), [9, 2]);
    assert_eq!(["bim", "small_lstm", "mamba"].map(|model| count("cardio", model)), [13, 2, 2]);
    let bim = cells.iter().find(|c| c.task_name() == "cardio").unwrap();
    assert_eq!(
        line(bim),
        "cardio/bim/1 {frame: 10, selection: here} {width: 64, lambda: 0, layers: 4} \
         {streams: 2, clip: 0.5, learning_rate: 3e-4}"
    );
    assert_eq!(example_cells("--scale paper").0.len(), 3 * (9 + 13 + 2) + 2 + 2);
}

#[test]
fn a_damaged_file_is_an_error_or_a_grid_and_never_a_panic() {
    let [(_, yaml), _] = example();
    let yaml = yaml.replace("extends: common.yaml", "");
    let letters: Vec<char> = yaml.chars().collect();
    let mut grids = 0;
    // Every place in steps of 5, which reaches all six kinds of damage: 5 and 6 have no common factor.
    for at in (0..letters.len()).step_by(5) {
        let (head, tail) = letters.split_at(at);
        let middle = ["", "[", "}", ": ", "\n", "'"][at % 6];
        let damaged: String = head.iter().copied().chain(middle.chars()).chain(tail[1..].iter().copied()).collect();
        let mut sources = Sources::default();
        let root = super::super::parse_text("t.yaml", &damaged, &mut sources);
        match root.and_then(|root| Grid::from_root(&root, &sources)) {
            Ok(_) => grids += 1,
            Err(error) => assert!(error.to_string().contains("--> t.yaml:"), "{error}"),
        }
    }
    assert!((20..letters.len() / 5 - 20).contains(&grids), "{grids}");
}

#[test]
fn the_same_file_gives_the_same_cells() {
    assert_eq!(example_cells("--scale paper").0, example_cells("--scale paper").0);
}

#[test]
fn every_resolved_scalar_stands_where_its_origin_says() {
    let (cells, sources) =
        example_cells("--scale paper --set train.words=[a, 'b c', {d: \"e\"}] --set bim.neuron.beta=0.9");
    let mut checked = 0;
    for cell in &cells {
        for tree in [&cell.task, &cell.model, &cell.train] {
            checked += check_origins(tree, &sources);
        }
    }
    assert!(checked > 500, "{checked}");
}

fn check_origins(node: &Node, sources: &Sources) -> usize {
    match &node.kind {
        Kind::Map(entries) => entries.iter().map(|(_, value)| check_origins(value, sources)).sum(),
        Kind::Seq(items) => items.iter().map(|item| check_origins(item, sources)).sum(),
        Kind::Scalar { text, quoted } => {
            let line = sources.text(node.origin.source).lines().nth(node.origin.line - 1).unwrap();
            let there: String = line.chars().skip(node.origin.column - 1).take(node.origin.length).collect();
            let expected = if *quoted { there.trim_matches(['\'', '"']) } else { &there };
            assert_eq!(expected, text, "{}", sources.locate(node.origin));
            1
        }
    }
}

#[test]
fn errors_of_typed_keys_point_at_the_layer_that_wrote_them() {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Train {
        steps: u64,
        rate: f64,
    }
    let yaml = "experiment: x\ntask: t\nmodels: [m]\ntrain: {steps: 5, rate: 1}\nsweep: {m.train.rat: [1]}\n";
    let problem = |arguments: &str, yaml: &str| {
        let (cells, sources, dir) = cells_of(&[("g.yaml", yaml)], &selection(arguments));
        let error = super::super::read_as::<Train>(&cells.unwrap()[0].train, "`train`", &sources).err().unwrap();
        error.to_string().replace(&format!("{}/", dir.path().display()), "")
    };
    let expected = "error: unknown key `rat` in `train`\n --> g.yaml:5:17\n  |\n5 | sweep: {m.train.rat: [1]}\n  \
                    |                 ^^^\n  = expected one of `steps`, `rate`\n  = help: did you mean `rate`?";
    assert_eq!(problem("", yaml), expected);
    let plain = &yaml[..yaml.find("sweep").unwrap()];
    let expected = "error: expected a whole number from 0 up, got text `abc`\n --> --set train.steps=abc\n  |\n  \
                    | train.steps=abc\n  |             ^^^";
    assert_eq!(problem("--set train.steps=abc", plain), expected);
    let expected = "error: unknown key `lr` in `train`\n --> --set model.train.lr=3\n  |\n  | model.train.lr=3\n  \
                    |             ^^\n  = expected one of `steps`, `rate`";
    assert_eq!(problem("--set model.train.lr=3", plain), expected);
}

#[test]
fn more_cells_than_anyone_means_are_refused_where_they_are_written() {
    let axis = |from: u32| (from..from + 101).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let text = format!(
        "experiment: many\ntask: {{kind: t}}\nmodels: [{{kind: m, a: 0, b: 0, c: 0}}]\nsweep:\n  m.a: [{}]\n  m.b: [{}]\n  m.c: [{}]\n",
        axis(0),
        axis(0),
        axis(0)
    );
    for text in [text.clone(), format!("{text}  exclude: [{{m.a: 1}}]\n")] {
        let (cells, _, _dir) = cells_of(&[("many.yaml", &text)], &selection(""));
        let error = cells.unwrap_err().to_string();
        assert!(error.contains("this makes 1030301 cells") && error.contains("many.yaml:5:3"), "{error}");
    }
}

#[test]
fn equal_cells_are_run_once_however_their_numbers_and_keys_are_ordered() {
    let text = "experiment: twice\ntask: {kind: t}\nmodels:\n  - {kind: m, a: 0.5, b: {x: 1, y: 2}}\n\
                sweep:\n  m.b: [{x: 1, y: 2}, {y: 2, x: 1}, {x: 1, y: '2'}]\n";
    let (cells, _, _dir) = cells_of(&[("twice.yaml", text)], &selection(""));
    let cells = cells.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(cells.len(), 2, "text is no number, and the order of keys says nothing");
}
