//! Fetching against a real server: broken connections, wrong bytes, full disks, hostile archives, kills. In each case the
//! outcome is right or the error clear, and nothing half-written is left where a dataset's file belongs.

mod archives;
mod bench;
mod import;
mod server;
mod transfer;
mod unpack;
