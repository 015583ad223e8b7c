import type { AddressInfo } from 'node:net';
import type { BrokerConfig } from '../broker.config.js';

const EVERYWHERE: Record<string, string> = { '0.0.0.0': 'every IPv4 address', '::': 'every address' };

/** Tells where the broker listens and who may call it, for its log. */
export function whereItListens(
  { address, family, port }: AddressInfo,
  { needsKeys }: Pick<BrokerConfig, 'needsKeys'>,
): string {
  const url = `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`;
  const facts = [
    EVERYWHERE[address],
    'no TLS',
    needsKeys ? 'calls need an API key' : 'no API key, so this machine only',
  ];
  return `${url} (${facts.filter((fact) => fact !== undefined).join('; ')})`;
}
