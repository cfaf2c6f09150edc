//! The whole program, with short rounds: each cell has figures, and the document is as its schema says. What the
//! figures are is no matter here.

use std::process::Command;

use serde_json::Value;

/// Cells that need little time.
const CELLS: &str =
    "quick,latency,one-process,stateless,session,rest,filter,slow,events,publish,broadcast,held,start,flood";

fn bench(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_bench")).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (output.status.success(), text)
}

#[test]
fn what_is_asked_wrongly_is_refused_with_what_to_do() {
    let list = bench(&["--list"]).1;
    for cell in CELLS.split(',') {
        assert!(list.lines().any(|line| line.split(' ').next() == Some(cell)), "{cell} in {list}");
    }
    for (arguments, why) in [
        (&["--only", "nothing"][..], "no cell nothing: see ./asgard bench --list"),
        (&["--target", "https://localhost/"], "must begin with http://"),
        (&["--peer-token", "x=y"], "there is no --peer x=URL"),
    ] {
        let (good, text) = bench(arguments);
        assert!(!good && text.contains(why), "{arguments:?}: {text}");
    }
}

#[test]
#[ignore = "needs the programs of a stack: ./asgard test bench"]
fn each_cell_has_figures_and_the_document_is_as_its_schema_says() {
    let folder = tempfile::tempdir().unwrap();
    let (file, charts) = (folder.path().join("report.json"), folder.path().join("charts"));
    let (file_name, charts_name) = (file.to_str().unwrap(), charts.to_str().unwrap());
    let (good, text) = bench(&["--quick", "--only", CELLS, "--json", file_name, "--charts", charts_name]);
    println!("{text}");
    assert!(good, "a cell failed");

    let document = std::fs::read_to_string(&file).unwrap();
    let report: Value = serde_json::from_str(&document).unwrap();
    let mut schemas = boon::Schemas::new();
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/report.schema.json");
    let schema = boon::Compiler::new().compile(schema, &mut schemas).unwrap();
    if let Err(error) = schemas.validate(&report, schema) {
        panic!("{error:#}");
    }
    let cells = report["cells"].as_array().unwrap();
    assert_eq!(cells.len(), CELLS.split(',').count());
    for cell in cells {
        let figures = cell["figures"].as_array().unwrap();
        assert!(!figures.is_empty(), "{cell}");
        // A ratio that is not known is not written anywhere, and its goal is not judged.
        for figure in figures.iter().filter(|figure| figure["value"].is_null()) {
            assert_eq!(
                (&figure["verdict"], &figure["low"]),
                (&Value::from("refused"), &Value::Null),
                "{figure}"
            );
        }
        // What does not depend on how fast the machine is.
        let of =
            |what: &str| figures.iter().find(|figure| figure["what"].as_str().unwrap().starts_with(what));
        for none in
            ["calls not answered while Redis is stopped", "events or results that are missing", "items lost"]
        {
            assert!(of(none).is_none_or(|figure| figure["value"] == 0.0), "{:?}", of(none));
        }
    }
    assert!(std::fs::read_to_string(charts.join("quick-cpu.svg")).unwrap().contains("gateway"));
}
