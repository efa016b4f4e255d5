//! The server and its witnesses: what is published, and what a witness in trouble cannot do.

mod attacks;
mod clients;
mod collecting;
mod support;
