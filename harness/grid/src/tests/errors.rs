//! Every error of the language, as the user sees it: the cases are in `errors.txt`.

use super::*;

/// A case: its name, the files, the arguments and the error.
type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, Selection, &'a str);

/// `==== name`, the grid, further files each under `++++ file`, then `---- arguments` and the error.
fn cases(text: &str) -> Vec<Case<'_>> {
    let case = |block: &'_ str| -> Option<(usize, usize)> { Some((block.find('\n')?, block.find("\n----")?)) };
    let mut out = Vec::new();
    for block in text.split("==== ").skip(1) {
        let (name_end, yaml_end) = case(block).unwrap();
        let mut files = block[name_end + 1..=yaml_end].split("++++ ");
        let mut all = vec![("grid.yaml", files.next().unwrap())];
        all.extend(files.map(|file| file.split_once('\n').unwrap()));
        let (arguments, error) = block[yaml_end + 5..].split_once('\n').unwrap();
        out.push((&block[..name_end], all, selection(arguments.trim()), error.trim_end()));
    }
    out
}

#[test]
fn errors_say_what_and_where_and_what_would_be_right() {
    let cases = cases(include_str!("errors.txt"));
    assert!(cases.len() > 50);
    let mut wrong = Vec::new();
    for (name, files, selection, expected) in cases {
        let (cells, _, dir) = cells_of(&files, &selection);
        let got = match cells {
            Ok(cells) => format!("no error, {} cells", cells.len()),
            Err(error) => error.to_string().replace(&format!("{}/", dir.path().display()), ""),
        };
        // Lines that end in a space would be trimmed by editors.
        let got = got.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        if got != expected {
            wrong.push(format!("==== {name}\n{got}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
