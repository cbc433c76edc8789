package mmio

// WindowBytes is the address space of one device, in bytes: the registers and
// room for every configuration space that we have.
const WindowBytes = 0x1000

// Registers (v1.2 §4.2.2 MMIO Device Register Layout), 32 bits each, R: read by
// the driver, W: written by it.
const (
	regMagicValue        = 0x000 // "virt" (R)
	regVersion           = 0x004 // of this layout: 2 (R)
	regDeviceID          = 0x008 // device type (R)
	regVendorID          = 0x00c // (R)
	regDeviceFeatures    = 0x010 // 32 offered feature bits (R)
	regDeviceFeaturesSel = 0x014 // which 32 of them (W)
	regDriverFeatures    = 0x020 // 32 accepted feature bits (W)
	regDriverFeaturesSel = 0x024 // which 32 of them (W)
	regQueueSel          = 0x030 // the queue that the Queue… registers are of (W)
	regQueueNumMax       = 0x034 // largest size, in descriptors; 0: no such queue (R)
	regQueueNum          = 0x038 // size, in descriptors (W)
	regQueueReady        = 0x044 // 1: set up (RW)
	regQueueNotify       = 0x050 // index of a queue with new buffers (W)
	regInterruptStatus   = 0x060 // why the interrupt (R)
	regInterruptACK      = 0x064 // bits of it that were dealt with (W)
	regStatus            = 0x070 // device status; writing 0 resets (RW)
	regQueueDescLow      = 0x080 // GPA of the descriptor table (W)
	regQueueDescHigh     = 0x084
	regQueueDriverLow    = 0x090 // GPA of the available ring (W)
	regQueueDriverHigh   = 0x094
	regQueueDeviceLow    = 0x0a0 // GPA of the used ring (W)
	regQueueDeviceHigh   = 0x0a4
	regSHMLenLow         = 0x0b0 // length of the shared memory region SHMSel (0x0ac) … (R)
	regSHMLenHigh        = 0x0b4
	regSHMBaseLow        = 0x0b8 // … and its GPA; all ones: there is none (R)
	regSHMBaseHigh       = 0x0bc
	regConfigGeneration  = 0x0fc // changes when the configuration space does (R)
	regConfig            = 0x100 // configuration space, accesses of any width (RW)
)

const (
	regBytes      = 4
	magicValue    = 0x74726976 // "virt", little-endian
	layoutVersion = 2
	vendorID      = 0x766e7572 // "runv", little-endian; Linux only shows it
	noRegion      = 1<<32 - 1  // v1.2 §4.2.2, SHMLenLow
)

// Bits of InterruptStatus (v1.2 §4.2.2).
const (
	intUsedBuffer   = 1 << 0
	intConfigChange = 1 << 1
)

// Bits of Status (v1.2 §2.1 Device Status Field).
const (
	statusAcknowledge = 1
	statusDriver      = 2
	statusDriverOK    = 4
	statusFeaturesOK  = 8
	statusNeedsReset  = 64
	statusFailed      = 128

	statusOfDriver = statusAcknowledge | statusDriver | statusDriverOK | statusFeaturesOK | statusFailed
)
