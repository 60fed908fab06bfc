//! What a run remembers of the answers of a source, in little memory: there may be one for each unit. Pure.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::{AnswerPrint, Key};

/// The digest of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Print {
    /// Of 32 hexadecimal digits, in lower case, as digests mostly are.
    Digest([u8; 16]),
    /// Any other text.
    Text(Box<str>),
}

impl Print {
    fn of(text: &str) -> Self {
        let digest: Option<u128> = u128::from_str_radix(text, 16).ok().filter(|digest| format!("{digest:032x}") == text);
        digest.map_or_else(|| Self::Text(text.into()), |digest| Self::Digest(digest.to_be_bytes()))
    }

    fn text(&self) -> String {
        match self {
            Self::Digest(digest) => format!("{:032x}", u128::from_be_bytes(*digest)),
            Self::Text(text) => text.to_string(),
        }
    }
}

/// What is remembered of answers, in the order in which it was added.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers {
    /// The keys, each once.
    keys: Vec<Key>,
    /// Where each key is in `keys`.
    places: HashMap<Key, usize>,
    /// The digest of each answer, the place of its key, and its first slot.
    answers: Vec<(Print, usize, i64)>,
}

impl Answers {
    /// Adds one.
    pub(crate) fn push(&mut self, answer: &AnswerPrint) {
        let place = match self.places.get(&answer.key) {
            Some(place) => *place,
            None => {
                self.keys.push(answer.key.clone());
                self.places.insert(answer.key.clone(), self.keys.len() - 1);
                self.keys.len() - 1
            }
        };
        self.answers.push((Print::of(&answer.print), place, answer.first));
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = AnswerPrint> {
        let answer = |(print, place, first): &(Print, usize, i64)| {
            Some(AnswerPrint { print: print.text(), key: self.keys.get(*place)?.clone(), first: *first })
        };
        self.answers.iter().filter_map(answer)
    }
}

impl PartialEq for Answers {
    fn eq(&self, other: &Self) -> bool {
        // The keys are in the order in which answers first had them.
        self.keys == other.keys && self.answers == other.answers
    }
}

impl Serialize for Answers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Answers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut answers = Self::default();
        for answer in Vec::<AnswerPrint>::deserialize(deserializer)? {
            answers.push(&answer);
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_back_as_they_were() {
        let prints =
            ["5f".repeat(16), "0".repeat(32), "5F".repeat(16), "5f".repeat(15), String::new(), "+0".repeat(16), "not a digest".into()];
        let mut answers = Answers::default();
        let mut added = Vec::new();
        for (first, print) in (-3..).zip(prints) {
            for key in [Key::from("b"), Key::from("a"), Key::new(["a", "b"])] {
                added.push(AnswerPrint { print: print.clone(), key, first });
                answers.push(&added[added.len() - 1]);
            }
        }
        assert_eq!(answers.iter().collect::<Vec<_>>(), added);
        assert_eq!(answers.keys.len(), 3);
        let text = serde_json::to_string(&answers).unwrap();
        assert_eq!(serde_json::from_str::<Answers>(&text).unwrap(), answers);
    }

    #[test]
    fn an_answer_takes_40_bytes() {
        assert_eq!(std::mem::size_of::<(Print, usize, i64)>(), 40);
    }
}
