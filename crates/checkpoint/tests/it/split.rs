//! Split models: opened from any part, incomplete or mixed sets refused.

use crate::{
    open::{MAPPED, READ, write},
    writer::Writer,
};
use checkpoint::Checkpoint;
use std::path::Path;

fn part(number: u16, count: u16, total: i32) -> Writer {
    let value = number as u8 + 10;
    Writer::new()
        .key("split.no", 2, &number.to_le_bytes())
        .key("split.count", 2, &count.to_le_bytes())
        .key("split.tensors.count", 5, &total.to_le_bytes())
        .key("which", 4, &u32::from(number).to_le_bytes())
        .tensor(&format!("t{number}"), &[4], 24, &[value; 4])
}

fn name(number: usize) -> String {
    format!("m-{number:05}-of-00003.gguf")
}

fn three(directory: &Path) {
    for number in 0..3 {
        write(directory, &name(number + 1), &part(number as u16, 3, 3).bytes());
    }
}

#[test]
fn any_part_opens_the_whole() {
    let directory = tempfile::tempdir().unwrap();
    three(directory.path());
    for options in [MAPPED, READ] {
        for opened in 1..=3 {
            let model = Checkpoint::open(&directory.path().join(name(opened)), &options).unwrap();
            assert_eq!(model.files().len(), 3);
            assert_eq!(model.metadata().u32("which").unwrap(), Some(0), "metadata of the first part");
            let names: Vec<&str> = model.tensors().iter().map(|t| t.name.as_str()).collect();
            assert_eq!(names, ["t0", "t1", "t2"]);
            let t2 = model.load("t2").unwrap();
            assert_eq!(t2.bytes()[..], [12; 4]);
            model.release(&t2);
            let sum: u64 = model.files().iter().map(|f| std::fs::metadata(f).unwrap().len()).sum();
            assert_eq!(model.file_bytes(), sum);
        }
    }
}

#[test]
fn wrong_sets_are_refused() {
    #[track_caller]
    fn check(change: impl FnOnce(&Path), opened: &str, expected: &[&str]) {
        let directory = tempfile::tempdir().unwrap();
        three(directory.path());
        change(directory.path());
        let error = Checkpoint::open(&directory.path().join(opened), &MAPPED).unwrap_err().to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    }
    let first = &name(1);
    check(|d| std::fs::remove_file(d.join(name(2))).unwrap(), first, &["part 2 of 3 is missing", &name(2)]);
    check(
        |d| drop(std::fs::copy(d.join(name(1)), d.join("x.gguf"))),
        "x.gguf",
        &["split.count", "NAME-00001-of-00003"],
    );
    check(|d| drop(std::fs::copy(d.join(name(3)), d.join(name(2)))), first, &["split.no is 2"]);
    check(|d| drop(write(d, &name(2), &part(1, 2, 3).bytes())), first, &["split.count is 2"]);
    check(|d| drop(write(d, &name(2), &Writer::small().bytes())), first, &["split.count is none"]);
    check(|d| drop(write(d, &name(1), &part(0, 3, 4).bytes())), first, &["4 tensors", "hold 3"]);
    let twice = part(1, 3, 4).tensor("t0", &[4], 24, &[0; 4]).bytes();
    let first_of_4 = part(0, 3, 4).bytes();
    check(
        |d| {
            write(d, &name(1), &first_of_4);
            write(d, &name(2), &twice);
        },
        first,
        &["`t0`", "duplicate", &name(2)],
    );
}
