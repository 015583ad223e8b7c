import type { Type } from '@nestjs/common';
import type { ModulesContainer } from '@nestjs/core';

/**
 * Places the lifecycle hooks of a module before or after those of all others.
 *
 * Nest calls hooks of start in the order of falling distance from the root module, and hooks of
 * stop in the reverse order. Global modules have the largest distance and the root module 0, so an
 * application's hooks lie between. No hook of Nest comes after every `onApplicationBootstrap` or
 * before every `onModuleDestroy`. Call it while modules are made: Nest sorts them later.
 */
export function placeHooks(modules: ModulesContainer, type: Type, place: 'first to start' | 'last to start'): void {
  const own = [...modules.values()].find(({ metatype }) => metatype === type);
  if (own !== undefined) own.distance = place === 'first to start' ? Infinity : -1;
}
