import { text } from 'node:stream/consumers';
import { Command } from 'commander';
import { UsageError } from '../exit-codes.js';
import { examples } from '../examples.js';
import { profileName, type Profiles, profilesPath, readProfiles, writeProfiles } from '../profiles.js';
import type { Open, Session } from '../session.js';

export function profileCommand(open: Open): Command {
  return new Command('profile')
    .description('Keep addresses and keys of brokers by name')
    .addCommand(list(open))
    .addCommand(set(open))
    .addCommand(use(open))
    .addCommand(remove(open));
}

function list(open: Open): Command {
  const command = new Command('list')
    .alias('ls')
    .description('List profiles, without their keys')
    .action(() => {
      const { out, env } = open();
      const { profiles, default: standard } = readProfiles(profilesPath(env));
      const rows = Object.entries(profiles).map(([name, { url, key }]) => ({
        name,
        url: [url].flat(),
        hasKey: key !== undefined,
        default: name === standard,
      }));
      out.data(rows, () =>
        rows.length === 0
          ? `No profiles in ${profilesPath(env)}.`
          : out.table(
              [
                { title: 'PROFILE', of: ({ name }) => name },
                { title: 'BROKER', of: ({ url }) => url.join(', ') },
                { title: 'KEY', of: ({ hasKey }) => (hasKey ? 'yes' : 'no') },
                { title: 'DEFAULT', of: (row) => (row.default ? 'yes' : '') },
              ],
              rows,
            ),
      );
    });
  examples(command, [['rowmq profile list', 'every profile']]);
  return command;
}

function set(open: Open): Command {
  const command = new Command('set')
    .description('Create or replace a profile. The first one becomes the default')
    .argument('<name>')
    .requiredOption('--address <url>', 'the broker; several, separated by commas')
    .option('--key-stdin', 'read its key from stdin')
    .action(async (name: string, { address, keyStdin }: { address: string; keyStdin?: true }) => {
      const session = open();
      if (!profileName.safeParse(name).success)
        throw new UsageError(`'${name}' is no name of a profile. Use up to 40 of the characters A-Z a-z 0-9 . _ -`);
      const url = address.split(',').map((one) => one.trim());
      for (const one of url) if (!URL.canParse(one)) throw new UsageError(`'${one}' is no address of a broker.`);
      const key = keyStdin === true ? (await text(process.stdin)).trim() : undefined;
      if (key === '') throw new UsageError('There is no key on stdin.');
      change(session, ({ default: standard = name, profiles }) => ({
        default: standard,
        profiles: { ...profiles, [name]: { url, ...(key !== undefined && { key }) } },
      }));
      session.out.done({ profile: name, url }, `Profile ${name} saved.`);
    });
  examples(command, [
    ['rowmq profile set test --address http://127.0.0.1:8080', 'a broker without keys'],
    ['rowmq profile set live --address https://a.example,https://b.example --key-stdin < key.txt', 'with a key'],
  ]);
  return command;
}

function use(open: Open): Command {
  const command = new Command('use')
    .description('Make a profile the default')
    .argument('<name>')
    .action((name: string) => {
      const session = open();
      change(session, (before) => ({ ...existing(before, name), default: name }));
      session.out.done({ default: name }, `Profile ${name} is the default.`);
    });
  examples(command, [['rowmq profile use live', 'for commands without --profile']]);
  return command;
}

function remove(open: Open): Command {
  const command = new Command('delete')
    .description('Delete a profile')
    .argument('<name>')
    .action((name: string) => {
      const session = open();
      change(session, (before) => {
        const { default: standard, profiles } = existing(before, name);
        const { [name]: _, ...others } = profiles;
        return { ...(standard !== undefined && standard !== name && { default: standard }), profiles: others };
      });
      session.out.done({ deleted: name }, `Profile ${name} deleted.`);
    });
  examples(command, [['rowmq profile delete test', 'its key is gone from the file']]);
  return command;
}

function change({ env }: Session, to: (before: Profiles) => Profiles): void {
  const path = profilesPath(env);
  writeProfiles(path, to(readProfiles(path)));
}

function existing(profiles: Profiles, name: string): Profiles {
  if (!Object.hasOwn(profiles.profiles, name)) throw new UsageError(`There is no profile '${name}'.`);
  return profiles;
}
