//! What a server promises: it runs what is due, shows it, and lets nobody else do anything. All tests of the crate are one program.

mod guard;
mod live;
mod readers;
mod world;
