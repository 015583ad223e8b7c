import { access, readFile } from 'node:fs/promises';
import { databaseHosts, KNOWN_SETTINGS } from '@rowmq/runtime';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { memberArguments } from '../tools/mysql-server/src/group/group-settings.js';

const root = new URL('../', import.meta.url);

interface Service {
  image: string;
  build?: string;
  pull_policy?: string;
  command?: string[];
  environment?: Record<string, string>;
  depends_on?: Record<string, { condition: string }>;
  healthcheck?: { test?: string[]; disable?: boolean };
  volumes?: string[];
  configs?: { source: string; target: string }[];
}

interface Compose {
  services: Record<string, Service>;
  volumes: Record<string, null>;
  configs?: Record<string, { content: string }>;
}

/** As Compose reads it, each variable being `secret`. */
async function read(file: string): Promise<Compose> {
  const text = await readFile(new URL(file, root), 'utf8');
  const filled = text.replaceAll(/\$\{\w+:\?[^}]+\}/g, 'secret').replaceAll('$$', '$');
  return parse(filled, { merge: true }) as Compose;
}

async function exists(path: string): Promise<boolean> {
  return access(new URL(path, root)).then(
    () => true,
    () => false,
  );
}

describe.each(['docker-compose.yml', 'docker-compose.ha.yml'])('%s', (file) => {
  test('has services that depend on each other, programs that are there, volumes and configs that are declared', async () => {
    const { services, volumes, configs = {} } = await read(file);
    for (const [name, service] of Object.entries(services)) {
      expect(service.image, name).toMatch(/^(?:rowmq|mysql:8\.4|haproxy:3\.2)$/);
      for (const needed of Object.keys(service.depends_on ?? {})) expect(Object.keys(services)).toContain(needed);
      for (const volume of service.volumes ?? []) {
        const source = volume.split(':')[0] as string;
        if (source.startsWith('./')) expect(await exists(source), source).toBe(true);
        else expect(Object.keys(volumes)).toContain(source);
      }
      for (const { source } of service.configs ?? []) expect(Object.keys(configs)).toContain(source);
      const programs = [...(service.command ?? []), ...(service.healthcheck?.test ?? [])].filter((word) =>
        word.includes('/dist/'),
      );
      for (const program of programs) {
        expect(await exists(program.replace('/dist/', '/src/').replace(/\.js$/, '.ts')), program).toBe(true);
      }
    }
    const own = Object.values(services).filter(({ image }) => image === 'rowmq');
    expect(own.filter(({ build }) => build === '.')).toHaveLength(1);
    for (const { pull_policy: pull } of own) expect(pull).toBe('never');
    expect(Object.keys(services).filter((name) => name.startsWith('broker-'))).toHaveLength(2);
    expect(Object.keys(services).filter((name) => name.startsWith('reaper-'))).toHaveLength(2);
  });

  test('takes every right of the system from all but the databases', async () => {
    const { services } = await read(file);
    for (const [name, service] of Object.entries(services)) {
      if (service.image === 'mysql:8.4') continue;
      expect(service, name).toMatchObject({
        read_only: true,
        cap_drop: ['ALL'],
        security_opt: ['no-new-privileges:true'],
      });
    }
  });

  test('sets settings that RowMQ knows, and names databases that are services', async () => {
    const { services } = await read(file);
    for (const [name, { image, environment = {} }] of Object.entries(services)) {
      if (image !== 'rowmq') continue;
      for (const setting of Object.keys(environment)) expect([...KNOWN_SETTINGS], name).toContain(setting);
      const hosts = databaseHosts(environment['ROWMQ_DATABASE_URL'] as string).map((url) => new URL(url).hostname);
      for (const host of hosts) expect(services[host]?.image, name).toBe('mysql:8.4');
    }
  });
});

describe('docker-compose.ha.yml', () => {
  test('has three servers with identities of their own, and all of them in every list', async () => {
    const { services, configs } = await read('docker-compose.ha.yml');
    const servers = Object.keys(services).filter((name) => services[name]?.image === 'mysql:8.4');
    expect(servers).toEqual(['mysql-1', 'mysql-2', 'mysql-3']);
    for (const [index, server] of servers.entries()) {
      expect(services[server]?.command).toEqual([
        `--server-id=${index + 1}`,
        `--report-host=${server}`,
        `--loose-group-replication-local-address=${server}:33061`,
      ]);
      expect(services[server]?.volumes).toEqual([`${server}:/var/lib/mysql`]);
    }
    expect(configs?.['server']?.content).toContain(`group_seeds = ${servers.map((name) => `${name}:33061`).join(',')}`);
    for (const name of ['broker-1', 'reaper-1', 'migrate', 'form-group', 'keep-group']) {
      const hosts = databaseHosts(services[name]?.environment?.['ROWMQ_DATABASE_URL'] as string);
      expect(hosts.map((url) => new URL(url).host)).toEqual(servers.map((server) => `${server}:3306`));
    }
  });

  test('sets up the group as npm run ha:up does, which is tested', async () => {
    const { configs } = await read('docker-compose.ha.yml');
    const inCompose = new Map<string, string>();
    for (const line of configs?.['server']?.content.split('\n') ?? []) {
      const [, name, value] = /^(?:loose_)?(\w+) = (.+)$/.exec(line) ?? [];
      if (name !== undefined && name !== 'plugin_load_add') inCompose.set(name, value as string);
    }
    /** The settings that differ between machines. */
    const own = /name|seeds|address|report_host|server_id|super_read_only|plugin_load|expire/;
    const members = [1, 2, 3].map((number) => ({ port: number, groupPort: number }));
    const wanted = memberArguments({ name: 'x', password: 'x', members }, 0)
      .map((argument) => argument.replace(/^--/, '').split('='))
      .map(([name, value]): [string, string] => [(name as string).replaceAll('-', '_'), value as string])
      .filter(([name]) => !own.test(name));
    expect(wanted.length).toBeGreaterThan(8);
    for (const [name, value] of wanted) expect([name, inCompose.get(name)]).toEqual([name, value]);
    for (const name of ['innodb_flush_log_at_trx_commit', 'sync_binlog']) expect(inCompose.get(name)).toBe('1');
  });
});
