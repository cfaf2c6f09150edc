//! The code in `docs/clients.md`, as it stands there.

use std::path::Path;

/// A block of code.
#[derive(Debug)]
pub struct Block {
    /// Its language.
    pub language: String,
    /// The code.
    pub code: String,
    /// The line of the page on which it begins, from 1.
    pub line: usize,
}

/// All blocks of the page.
#[must_use]
pub fn blocks() -> Vec<Block> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/clients.md");
    let text = std::fs::read_to_string(page).unwrap();
    let mut blocks = Vec::<Block>::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(language) => {
                open = true;
                blocks.push(Block { language: language.to_owned(), code: String::new(), line: index + 2 });
            }
            None if open => {
                let code = &mut blocks.last_mut().unwrap().code;
                code.push_str(line);
                code.push('\n');
            }
            None => {}
        }
    }
    blocks
}
