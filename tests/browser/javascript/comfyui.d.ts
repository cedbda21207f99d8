/**
 * What the pack's browser modules use of ComfyUI's front end. Written by hand, for checking alone: nothing else in the
 * front end is to be relied on.
 */

interface LGraph {
  id: string;
  nodes: LGraphNode[];
  rootGraph?: LGraph;
  getNodeById(id: number | string): LGraphNode | null;
  [other: string]: any;
}

interface ComfyWidget {
  name: string;
  type: string;
  value: any;
  serialize?: boolean;
  options: { min?: number; max?: number; [other: string]: any };
  callback?: (...values: any[]) => any;
  [other: string]: any;
}

interface LGraphNode {
  id: number | string;
  type: string;
  comfyClass: string;
  title: string;
  pos: [number, number];
  size: [number, number];
  graph: LGraph | null;
  subgraph?: LGraph;
  widgets: ComfyWidget[];
  inputs: any[];
  outputs: any[];
  onConnectionsChange?: (...rest: any[]) => any;
  addDOMWidget(name: string, type: string, element: HTMLElement, options?: object): ComfyWidget;
  removeWidget(widget: ComfyWidget): void;
  computeSize(): [number, number];
  setSize(size: [number, number]): void;
  setDirtyCanvas(foreground: boolean, background?: boolean): void;
  [other: string]: any;
}

interface ComfySetting {
  id: string;
  name: string;
  type: string;
  defaultValue: unknown;
  category?: string[];
  tooltip?: string;
  attrs?: object;
  options?: unknown;
  onChange?: (value: any, old?: any) => void;
}

interface ComfyExtension {
  name: string;
  settings?: ComfySetting[];
  setup?(app: ComfyApp): void | Promise<void>;
  init?(app: ComfyApp): void | Promise<void>;
  nodeCreated?(node: LGraphNode, app: ComfyApp): void;
  loadedGraphNode?(node: LGraphNode, app: ComfyApp): void;
  afterConfigureGraph?(missing: unknown[], app: ComfyApp): void | Promise<void>;
  [other: string]: any;
}

interface ComfyApp {
  graph: LGraph;
  rootGraph?: LGraph;
  canvas: any;
  configuringGraph?: boolean;
  ui: {
    settings: EventTarget & { getSettingValue(id: string): any; [other: string]: any };
    [other: string]: any;
  };
  extensionManager: {
    toast: { add(message: { severity: string; summary: string; detail?: string; life?: number }): void };
    [other: string]: any;
  };
  registerExtension(extension: ComfyExtension & ThisType<any>): void;
  [other: string]: any;
}

interface ComfyApi {
  clientId?: string;
  addEventListener(type: string, listener: (event: CustomEvent<any>) => void): void;
  fetchApi(route: string, options?: RequestInit): Promise<Response>;
  apiURL(route: string): string;
  [other: string]: any;
}

declare module "*/scripts/app.js" {
  export const app: ComfyApp;
}

declare module "*/scripts/api.js" {
  export const api: ComfyApi;
}

declare module "*/scripts/utils.js" {
  export function applyTextReplacements(app: ComfyApp, text: string): string;
}

declare var LiteGraph: any;
