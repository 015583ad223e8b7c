import { execFile } from 'node:child_process';
import { access, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { KNOWN_SETTINGS } from '@rowmq/runtime';
import { describe, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { readBrokerConfig } from '../apps/broker/src/broker.config.js';
import { readReaperConfig } from '../apps/reaper/src/reaper.config.js';
import { findHelm } from './support/helm.js';

/* The files of deploy/ for Kubernetes and systemd. */

const run = promisify(execFile);
const pathOf = (path: string): string => fileURLToPath(new URL(`../${path}`, import.meta.url));
const textOf = async (path: string): Promise<string> => readFile(pathOf(path), 'utf8');
const CHART = pathOf('deploy/helm/rowmq');
const PARTS = ['migrate', 'broker', 'reaper'];
const DATABASE = 'mysql://user:password@db:3306/rowmq';

interface Resource {
  apiVersion: string;
  kind: string;
  spec: Record<string, unknown>;
}
interface Container {
  name: string;
  command?: string[];
  env: { name: string; value?: string }[];
  ports?: { name: string; containerPort: number }[];
  [probe: string]: unknown;
}
interface Pod {
  terminationGracePeriodSeconds: number;
  containers: [Container];
}

async function resourcesOf(path: string): Promise<Resource[]> {
  return parseAllDocuments(await textOf(path)).map((document) => document.toJS() as Resource);
}

/** The Deployment or the Job. */
async function workloadOf(part: string): Promise<Resource> {
  const resources = await resourcesOf(`deploy/kubernetes/${part}.yaml`);
  return resources.find(({ kind }) => ['Deployment', 'Job'].includes(kind)) ?? expect.fail(part);
}

function podOf({ spec }: Resource): Pod {
  return (spec['template'] as { spec: Pod }).spec;
}

/** Throws if Kubernetes does not take a resource. Returns the fields that it would ignore. */
async function check(resource: Resource): Promise<string[]> {
  const { apiVersion, kind } = resource;
  const path = `kubernetes-models/${apiVersion}/${kind}`;
  const models = (await import(path)) as Record<string, { prototype: { validate(this: object): void } }>;
  const unread = new Set<string>();
  // The constructor would copy every field. The method reads those that it checks.
  models[kind]?.prototype.validate.call(watched(resource, '', unread));
  return [...unread];
}

/** Notes each field that nobody reads. The validators read every field that they know. */
function watched<T extends object>(value: T, path: string, unread: Set<string>): T {
  const inside = new Map<string, object>();
  for (const key of Object.keys(value)) unread.add(`${path}.${key}`);
  return new Proxy(value, {
    get(target, key, receiver) {
      const field: unknown = Reflect.get(target, key, receiver);
      if (typeof key === 'symbol' || !Object.hasOwn(target, key)) return field;
      unread.delete(`${path}.${key}`);
      if (typeof field !== 'object' || field === null) return field;
      const known = inside.get(key) ?? watched(field, `${path}.${key}`, unread);
      inside.set(key, known);
      return known;
    },
  });
}

describe('the manifests', () => {
  test.each(PARTS)('%s: are resources that Kubernetes takes, without a field that it ignores', async (part) => {
    for (const resource of await resourcesOf(`deploy/kubernetes/${part}.yaml`)) {
      expect([resource.kind, await check(resource)]).toEqual([resource.kind, []]);
    }
  });

  test('a misspelt field would be found', async () => {
    const wrong = structuredClone(await workloadOf('reaper'));
    Object.assign(podOf(wrong).containers[0], { livnessProbe: {} });
    expect(await check(wrong)).toEqual(['.spec.template.spec.containers.0.livnessProbe']);
  });

  test.each(PARTS)('%s: give the program settings that it takes, and time to stop', async (part) => {
    const pod = podOf(await workloadOf(part));
    const [{ command = ['node', 'apps/broker/dist/main.js'], env }] = pod.containers;
    const source = (command[1] as string).replace('/dist/', '/src/').replace(/\.js$/, '.ts');
    await access(pathOf(source));
    const given = Object.fromEntries(env.flatMap(({ name, value }) => (value === undefined ? [] : [[name, value]])));
    expect(KNOWN_SETTINGS).toEqual(expect.arrayContaining(env.map(({ name }) => name)));
    if (part === 'migrate') return;
    const read = part === 'broker' ? readBrokerConfig : readReaperConfig;
    const { stopSeconds } = read({ ...given, ROWMQ_DATABASE_URL: DATABASE, ROWMQ_ADMIN_KEY: 'x'.repeat(16) });
    expect(pod.terminationGracePeriodSeconds).toBeGreaterThan(stopSeconds);
  });

  test.each([
    ['broker', 'http', 8080],
    ['reaper', 'health', 8081],
  ])('%s: probe the port that the program listens on', async (part, name, port) => {
    const [container] = podOf(await workloadOf(part)).containers;
    expect(container.ports).toContainEqual({ name, containerPort: port });
    for (const [probe, path] of [
      ['startupProbe', '/health/live'],
      ['livenessProbe', '/health/live'],
      ['readinessProbe', '/health/ready'],
    ] as const)
      expect(container[probe]).toMatchObject({ httpGet: { path, port: name } });
  });
});

describe.runIf(findHelm() !== undefined)('the Helm chart', () => {
  const helm = async (...args: string[]): Promise<string> => (await run(findHelm() as string, args)).stdout;

  test('has no fault that Helm finds', async () => {
    expect(await helm('lint', '--strict', CHART)).toContain('0 chart(s) failed');
  });

  test.each(PARTS)('makes the manifests of %s', async (part) => {
    const made = await helm('template', 'rowmq', CHART, '--show-only', `templates/${part}.yaml`);
    expect(await textOf(`deploy/kubernetes/${part}.yaml`)).toBe(made);
  });

  test('makes what Kubernetes takes with other values, and refuses values that it does not know', async () => {
    const values = ['broker.autoscaling.enabled=false', 'broker.env.ROWMQ_MAX_BODY_BYTES=65536', 'image.tag=1'];
    const made = await helm(
      'template',
      'mq',
      CHART,
      ...values.flatMap((value) => ['--set-string', value]).slice(2),
      '--set',
      values[0] as string,
      '--set',
      'broker.trustedProxies={10.0.0.0/8,fd00::/8}',
    );
    expect(made).toMatch(/name: ROWMQ_TRUSTED_PROXIES\n +value: "10.0.0.0\/8,fd00::\/8"/);
    const resources = parseAllDocuments(made).map((document) => document.toJS() as Resource);
    for (const resource of resources) expect(await check(resource)).toEqual([]);
    expect(resources.map(({ kind }) => kind)).not.toContain('HorizontalPodAutoscaler');
    await expect(helm('template', 'mq', CHART, '--set', 'broker.replica=3')).rejects.toThrow(/replica/);
  });
});

test('the unit for systemd runs both programs and gives them time to stop', async () => {
  const settings = new Map(
    [...(await textOf('deploy/systemd/rowmq@.service')).matchAll(/^(\w+)=(.*)$/gm)].map(([, name, value]) => [
      name as string,
      value as string,
    ]),
  );
  const [, program = ''] = /^\/usr\/bin\/node (\S+)\.js$/.exec(settings.get('ExecStart') ?? '') ?? [];
  for (const app of ['broker', 'reaper'])
    await access(pathOf(`${program.replace('%i', app).replace('/dist/', '/src/')}.ts`));
  const { stopSeconds } = readBrokerConfig({ ROWMQ_DATABASE_URL: DATABASE });
  expect(Number(settings.get('TimeoutStopSec'))).toBeGreaterThan(stopSeconds);
});
