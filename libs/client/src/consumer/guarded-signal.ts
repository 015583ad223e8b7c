type Listener = (event: Event) => unknown;
type ListenerLike = Listener | { handleEvent: Listener };

/**
 * A controller whose signal's listeners cannot end the process. Node turns an error of an abort
 * listener, and the rejection of an asynchronous one, into an uncaught exception.
 * @param onError told of each failure; never throws
 */
export function guardedController(onError: (error: unknown) => void): AbortController {
  const controller = new AbortController();
  const { signal } = controller;
  const guards = new WeakMap<ListenerLike, Listener>();
  const guarded = (listener: ListenerLike): Listener => {
    const known = guards.get(listener);
    if (known !== undefined) return known;
    const guard = (event: Event): void => {
      try {
        const result: unknown =
          typeof listener === 'function' ? listener.call(signal, event) : listener.handleEvent(event);
        if (result instanceof Promise) result.catch(onError);
      } catch (error) {
        onError(error);
      }
    };
    guards.set(listener, guard);
    return guard;
  };
  const add = (type: string, listener: ListenerLike | null, options?: object): void => {
    EventTarget.prototype.addEventListener.call(signal, type, (listener && guarded(listener)) as Listener, options);
  };
  const remove = (type: string, listener: ListenerLike | null, options?: object): void => {
    EventTarget.prototype.removeEventListener.call(signal, type, (listener && guarded(listener)) as Listener, options);
  };
  let onabort: AbortSignal['onabort'] = null;
  Object.defineProperties(signal, {
    addEventListener: { value: add },
    removeEventListener: { value: remove },
    onabort: {
      get: () => onabort,
      set: (listener: AbortSignal['onabort']) => {
        if (onabort !== null) remove('abort', onabort as Listener);
        onabort = typeof listener === 'function' ? listener : null;
        if (onabort !== null) add('abort', onabort as Listener);
      },
    },
  });
  return controller;
}
