//! A disk that promises only what POSIX does: data of a file is there after a flush of the file, a name after a flush of its folder. What was
//! not flushed when power is lost may be there, or not, or in part, and in any order. It is computed from the log of the shim.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::shim::Operation;

/// Flags of `open`, as Linux numbers them.
const CREATE: i64 = 0o100;
const TRUNCATE: i64 = 0o1000;

/// What a write may leave is whole blocks of this size, as disks write them.
const BLOCK: usize = 512;

/// Files with their bytes, and folders, by their path below the root.
pub(super) type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// What may be there of what was not flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Nothing.
    Everything,
    /// All names, and no data: a file may be empty under its final name.
    Data,
    /// All names, and the lengths of files, in which there are zeros.
    Contents,
    /// All data, and no names.
    Names,
    /// Each name and each block or not, by chance.
    Some(u64),
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => {
                if content.len() < offset + data.len() {
                    content.resize(offset + data.len(), 0);
                }
                content[*offset..offset + data.len()].copy_from_slice(data);
            }
            Self::Length(length) => content.resize(*length, 0),
        }
    }
}

/// A file or folder.
#[derive(Debug, Clone, Default)]
struct Node {
    is_folder: bool,
    /// What is on the disk.
    flushed: Vec<u8>,
    /// What was done to it since.
    pending: Vec<Change>,
    /// What processes see.
    content: Vec<u8>,
}

/// Names that change together: in a folder, a name becomes that of a node, or nobody's.
type Renaming = Vec<(usize, String, Option<usize>)>;

/// The disk.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub(super) root: PathBuf,
    nodes: Vec<Node>,
    by_inode: HashMap<i64, usize>,
    /// What processes see.
    names: BTreeMap<(usize, String), usize>,
    /// What is on the disk.
    flushed: BTreeMap<(usize, String), usize>,
    pending: Vec<Renaming>,
}

fn rename(names: &mut BTreeMap<(usize, String), usize>, renaming: &Renaming) {
    for (folder, name, node) in renaming {
        match node {
            Some(node) => names.insert((*folder, name.clone()), *node),
            None => names.remove(&(*folder, name.clone())),
        };
    }
}

/// Chance, from a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }
}

impl Disk {
    /// A folder as it is now, all of it flushed.
    pub(super) fn of(root: &Path) -> Self {
        let mut disk = Self {
            root: root.to_owned(),
            nodes: vec![Node { is_folder: true, ..Node::default() }],
            by_inode: HashMap::from([(root.metadata().unwrap().ino().cast_signed(), 0)]),
            names: BTreeMap::new(),
            flushed: BTreeMap::new(),
            pending: Vec::new(),
        };
        disk.add(root, 0);
        disk.flushed = disk.names.clone();
        disk
    }

    fn add(&mut self, folder: &Path, at: usize) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let content = if path.is_dir() { Vec::new() } else { std::fs::read(&path).unwrap() };
            let node = self.new_node(path.is_dir(), path.metadata().unwrap().ino().cast_signed());
            (self.nodes[node].flushed, self.nodes[node].content) = (content.clone(), content);
            self.names.insert((at, path.file_name().unwrap().to_str().unwrap().to_owned()), node);
            if path.is_dir() {
                self.add(&path, node);
            }
        }
    }

    fn new_node(&mut self, is_folder: bool, inode: i64) -> usize {
        self.nodes.push(Node { is_folder, ..Node::default() });
        // A number is used again once its file is gone.
        self.by_inode.insert(inode, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    /// The folder in which a path is, and its name there.
    fn place(&self, path: &Path) -> (usize, String) {
        let below = path.strip_prefix(&self.root).unwrap_or_else(|_| panic!("{} is elsewhere", path.display()));
        let mut names: Vec<String> = below.components().map(|part| part.as_os_str().to_str().unwrap().to_owned()).collect();
        let last = names.pop().expect("the root itself does not change");
        let folder = names.iter().fold(0, |at, name| {
            *self
                .names
                .get(&(at, name.clone()))
                .unwrap_or_else(|| panic!("{}: the log does not say where {name} comes from", path.display()))
        });
        (folder, last)
    }

    fn rename(&mut self, renaming: Renaming) {
        rename(&mut self.names, &renaming);
        self.pending.push(renaming);
    }

    fn change(&mut self, inode: i64, change: Change) {
        let node = self.by_inode[&inode];
        change.apply(&mut self.nodes[node].content);
        self.nodes[node].pending.push(change);
    }

    /// Does what was logged.
    pub(super) fn apply(&mut self, operation: &Operation) {
        let Operation { kind, result, inode, path, other, .. } = operation;
        if *kind == 'f' {
            self.flush(self.by_inode[inode], *result >= 0);
            return;
        }
        if *result < 0 {
            return;
        }
        let length = usize::try_from(operation.offset).unwrap();
        match kind {
            'c' => {
                let place = self.place(path);
                if operation.offset & CREATE != 0 && !self.names.contains_key(&place) {
                    let node = self.new_node(false, *inode);
                    self.rename(vec![(place.0, place.1, Some(node))]);
                } else if operation.offset & TRUNCATE != 0 {
                    self.change(*inode, Change::Length(0));
                }
            }
            'w' => {
                if !operation.data.is_empty() {
                    self.change(*inode, Change::Write { offset: length, data: operation.data.clone() });
                }
            }
            't' => self.change(*inode, Change::Length(length)),
            'd' => {
                let (folder, name) = self.place(path);
                let node = self.new_node(true, *inode);
                self.rename(vec![(folder, name, Some(node))]);
            }
            'u' | 'x' => {
                let (folder, name) = self.place(path);
                self.rename(vec![(folder, name, None)]);
            }
            'n' | 'k' => {
                let (from, to) = (self.place(path), self.place(other));
                let node = self.names[&from];
                let mut renaming = vec![(to.0, to.1, Some(node))];
                if *kind == 'n' {
                    renaming.insert(0, (from.0, from.1, None));
                }
                self.rename(renaming);
            }
            other => panic!("the log has an unknown kind of operation {other}"),
        }
    }

    /// A flush that fails loses what it should have kept, and the next one does not bring it back.
    fn flush(&mut self, node: usize, succeeds: bool) {
        for change in std::mem::take(&mut self.nodes[node].pending) {
            if succeeds {
                change.apply(&mut self.nodes[node].flushed);
            }
        }
        if succeeds && self.nodes[node].is_folder {
            for renaming in std::mem::take(&mut self.pending) {
                if renaming.iter().any(|(folder, ..)| *folder == node) {
                    rename(&mut self.flushed, &renaming);
                } else {
                    self.pending.push(renaming);
                }
            }
        }
    }

    /// What processes see.
    pub(super) fn seen(&self) -> Tree {
        let contents: Vec<Vec<u8>> = self.nodes.iter().map(|node| node.content.clone()).collect();
        self.tree(&self.names, &contents)
    }

    /// What may be there after power was lost.
    pub(super) fn after(&self, loss: Loss) -> Tree {
        let mut chance = Chance(if let Loss::Some(seed) = loss { seed } else { 0 });
        let mut names = self.flushed.clone();
        for renaming in &self.pending {
            let is_there = match loss {
                Loss::Everything | Loss::Names => false,
                Loss::Data | Loss::Contents => true,
                Loss::Some(_) => chance.below(2) == 0,
            };
            if is_there {
                rename(&mut names, renaming);
            }
        }
        let contents: Vec<Vec<u8>> = self.nodes.iter().map(|node| node.after(loss, &mut chance)).collect();
        self.tree(&names, &contents)
    }

    fn tree(&self, names: &BTreeMap<(usize, String), usize>, contents: &[Vec<u8>]) -> Tree {
        let mut tree = Tree::new();
        let mut folders = vec![(0, PathBuf::new())];
        while let Some((folder, path)) = folders.pop() {
            for ((_, name), node) in names.range((folder, String::new())..(folder + 1, String::new())) {
                let path = path.join(name);
                if self.nodes[*node].is_folder {
                    folders.push((*node, path.clone()));
                    tree.insert(path, None);
                } else {
                    tree.insert(path, Some(contents[*node].clone()));
                }
            }
        }
        tree
    }
}

impl Node {
    fn after(&self, loss: Loss, chance: &mut Chance) -> Vec<u8> {
        let mut content = self.flushed.clone();
        for change in &self.pending {
            match loss {
                Loss::Everything | Loss::Data => {}
                Loss::Names => change.apply(&mut content),
                Loss::Contents => {
                    let length = match change {
                        Change::Write { offset, data } => content.len().max(offset + data.len()),
                        Change::Length(length) => *length,
                    };
                    content.resize(length, 0);
                }
                Loss::Some(_) => match change {
                    Change::Write { offset, data } => match chance.below(3) {
                        0 => {}
                        1 => change.apply(&mut content),
                        _ => {
                            for (index, block) in data.chunks(BLOCK).enumerate() {
                                if chance.below(2) == 0 {
                                    Change::Write { offset: offset + index * BLOCK, data: block.to_vec() }.apply(&mut content);
                                }
                            }
                        }
                    },
                    Change::Length(_) if chance.below(2) == 0 => {}
                    Change::Length(_) => change.apply(&mut content),
                },
            }
        }
        content
    }
}

/// The files and folders that there are.
pub(super) fn tree_of(root: &Path) -> Tree {
    Disk::of(root).seen()
}

/// Lays a tree out in an empty folder.
pub(super) fn lay_out(tree: &Tree, root: &Path) {
    for (path, content) in tree {
        let path = root.join(path);
        match content {
            Some(content) => std::fs::write(path, content).unwrap(),
            None => std::fs::create_dir(path).unwrap(),
        }
    }
}
