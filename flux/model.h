/* flux/model.h: the shared, frozen base. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A process-wide registry (the only global) keyed by (fingerprint, quantisation, compute
 * dtype, device) so that trainers and samplers of one process share one copy. Whoever
 * runs something on the backend holds the lock; tickets are served in order, so a sampler
 * waiting for a trainer is served after the current step. */
#pragma once

#include "flux/transformer/transformer.h"

G_BEGIN_DECLS

typedef enum {
  FLUX_DEVICE_AUTO = -2,
  FLUX_DEVICE_CPU = -1 /* 0.. = cuda:N */
} FluxDevice;

/* "auto", "cpu", "cuda", "cuda:N"; FALSE with a sentence otherwise. */
gboolean flux_device_parse (const char *text, int *device, GError **error);
/* A backend for a device: auto takes a GPU when one is usable. compute: FX_N_DTYPES = the
 * device's best. */
fx_backend *flux_backend_new (int device, fx_dtype compute, GError **error);
/* The same, and where auto comes to the CPU *fallback (which may be one from before) says
 * why: FLUX_ERROR_NOT_FOUND when there is no GPU to be had, else a person may want to
 * know, as of a CUDA module that is there, or was named, and cannot be used. */
fx_backend *
flux_backend_choose (int device, fx_dtype compute, GError **fallback, GError **error);
/* Keeps its GEMM plans for the next process (flux/files/gemm-plans.h). NULL is fine. */
void flux_backend_free (fx_backend *b);

typedef struct _FluxModel FluxModel;

/* What is on the device, so that less memory does. The results are the same bits. */
typedef enum {
  FLUX_OFFLOAD_NONE,  /* all of it that is used */
  FLUX_OFFLOAD_MODEL, /* text encoders, transformer and VAE in turn */
  FLUX_OFFLOAD_STREAM /* the transformer's blocks as they are used; they stay on the host
                       */
} FluxOffload;

/* Whether there is room on b for a model and what is to be done with it; FALSE with
 * *error set. */
typedef gboolean (*FluxRoomFunc) (fx_backend *b, gpointer data, GError **error);

typedef struct {
  const char *path; /* model folder */
  fx_qtype qtype;
  fx_dtype compute; /* FX_N_DTYPES: the device's best */
  int device;
  FluxWeightsCache
      *cache; /* for quantised weights, or NULL; not part of the identity; borrowed */
  FluxOffload offload;
  FluxRoomFunc
      room; /* asked before weights are read, or NULL; not part of the identity */
  gpointer room_data;
  GError **fallback; /* as for flux_backend_choose(), or NULL; not part of the identity */
} FluxModelKey;

/* Loads, or gives another reference to what is already loaded. Blocks. With
 * FLUX_OFFLOAD_MODEL it is one's own, and its weights are not loaded yet. */
FluxModel *flux_model_acquire (
    const FluxModelKey *key, FluxProgressFunc progress, gpointer data, GError **error);
/* The same as a copy of one's own, which nobody else is given: adapters can be merged
 * into it. */
FluxModel *flux_model_load (
    const FluxModelKey *key, FluxProgressFunc progress, gpointer data, GError **error);
/* A model around a transformer that no file holds, for measurements; the registry does
 * not know it. The transformer and its backend are taken over. */
FluxModel *flux_model_new_for (FluxTransformer *transformer);
/* What key would load on b, on the plan backend: it has sizes, and nothing is read but
 * headers. */
FluxModel *
flux_model_new_planned (const fx_backend *b, const FluxModelKey *key, GError **error);
FluxModel *flux_model_ref (FluxModel *self);
void flux_model_unref (FluxModel *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxModel, flux_model_unref)
/* NULL while the weights of FLUX_OFFLOAD_MODEL are not there. */
FluxTransformer *flux_model_get_transformer (FluxModel *self);
const FluxConfig *flux_model_get_config (FluxModel *self);
FluxOffload flux_model_get_offload (FluxModel *self);
/* Loads the weights when they are not there. With the lock, as is: */
gboolean flux_model_open_weights (
    FluxModel *self, FluxProgressFunc progress, gpointer data, GError **error);
/* Frees them, once there is no run on them, if they can be loaded again. */
void flux_model_close_weights (FluxModel *self);
fx_backend *flux_model_get_backend (FluxModel *self);
const char *flux_model_get_fingerprint (FluxModel *self);
void flux_model_lock (FluxModel *self); /* first come, first served */
void flux_model_unlock (FluxModel *self);

G_END_DECLS
