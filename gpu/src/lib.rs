//! GPU memory as a tier: the engine's [`Device`] trait on CUDA and cuFile.
//!
//! Nothing here yet but the face that the rest of aimss programs against: [`probe`] says which devices this
//! machine offers to the tier, and today it offers none, with the reason. The CUDA and cuFile side is loaded at
//! run time when it comes; building and testing never need a GPU.

use aimss_engine::device::Device;

/// Why no device is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// A sentence for `aimss doctor` and `aimss status`.
    pub reason: String,
}

/// The devices that can hold spilled extents, or why there are none.
pub fn probe() -> Result<Vec<Box<dyn Device>>, Unavailable> {
    Err(Unavailable {
        reason: "the GPU tier is not built yet; spilled data goes from the arena to the backing".into(),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn probing_without_a_gpu_gives_a_reason() {
        let unavailable = super::probe().err().expect("no device is offered yet");
        assert!(!unavailable.reason.is_empty());
    }
}
