//! Numbers from samples: how long packets took, and what became of them.
//!
//! [`delay`] is fed by the stats thread with the blocks of samples that arrive through the pipe;
//! [`sequence`] belongs to the receiver thread itself, so that counts stay exact even when samples
//! find no room. Both take constant memory whatever the run's length, allocate nothing after
//! construction, and use neither clock nor socket: they run on recorded samples as on live ones.

mod bins;
pub mod clock;
pub mod delay;
mod kept;
mod packets;
pub mod sequence;
pub mod spread;

#[expect(
    clippy::cast_precision_loss,
    reason = "figures that are shown as floats, and their errors: 53 bits are enough"
)]
fn float(value: i128) -> f64 {
    value as f64
}
