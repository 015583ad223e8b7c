// Preloaded into a process that has no metrics of its own. Every second it tells its parent how
// much of its heap is in use.
setInterval(() => {
  process.send?.({ heapBytes: process.memoryUsage().heapUsed }, undefined, undefined, () => undefined);
}, 1000).unref();
