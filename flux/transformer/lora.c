/* flux/transformer/lora.c: adapters in memory. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include <math.h>
#include <string.h>

#include "flux/error.h"
#include "flux/transformer/lora-private.h"

enum {
  MAX_RANK = 4096,
  PADDING = 256,           /* elements: fx.h FX_ADAM8_BLOCK */
  STREAM_INIT = 0x41525f4c /* what fx_philox draws are for; any constant of its own */
};

/* ---- layout ---- */

static void
add_tensor (FluxLora *self, guint slot, gboolean is_b, gint64 rows, gint64 cols)
{
  FluxLoraTensor *t = &self->tensors[self->n_tensors++];

  *t = (FluxLoraTensor){.offset = self->n_flat,
      .n_elements = (gsize)(rows * cols),
      .rows = rows,
      .cols = cols,
      .slot = slot,
      .is_b = is_b};
  self->n_parameters += t->n_elements;
  self->n_flat += (t->n_elements + PADDING - 1) / PADDING * PADDING;
}

static void
lay_out (FluxLora *self, const int *ranks, const float *alphas)
{
  self->tensors = g_new0 (FluxLoraTensor, 2 * (gsize)self->n_slots);
  for (guint i = 0; i < self->n_slots; i++) {
    if (ranks[i] == 0)
      continue;
    if (ranks[i] > self->rank) {
      self->rank = ranks[i];
      self->alpha = alphas[i];
    }
    self->alphas[i] = alphas[i];
    self->modules[i].rank = ranks[i];
    add_tensor (self, i, FALSE, ranks[i], self->slots[i].k);
    add_tensor (self, i, TRUE, self->slots[i].n, ranks[i]);
  }
}

static int
reserve_flat (FluxLora *self, fx_arena *arena, const char *name)
{
  gsize bytes = self->n_flat * sizeof (float);

  fx_arena_init (arena, self->backend, name);
  FX_TRY (fx_arena_reserve (arena, bytes));
  return fx_zero (self->backend, arena->base, bytes);
}

/* Points the modules into the flat buffers. */
static void
point_modules (FluxLora *self)
{
  float *parameters = flux_lora_parameters (self);
  float *gradients = flux_lora_gradients (self);

  for (guint i = 0; i < self->n_tensors; i++) {
    const FluxLoraTensor *t = &self->tensors[i];
    fx_lora *m = &self->modules[t->slot];
    float *gradient = gradients != NULL ? gradients + t->offset : NULL;
    if (t->is_b) {
      m->b = parameters + t->offset;
      m->db = gradient;
    } else {
      m->a = parameters + t->offset;
      m->da = gradient;
    }
  }
  flux_lora_set_multiplier (self, 1);
}

FluxLora *
flux_lora_build (const FluxConfig *c, fx_backend *b, const int *ranks,
    const float *alphas, gboolean with_gradients, GError **error)
{
  FluxLora *self = g_new0 (FluxLora, 1);
  int status;

  self->config = *c;
  self->backend = b;
  self->slots = flux_lora_slots (c, &self->n_slots);
  self->modules = g_new0 (fx_lora, self->n_slots);
  self->alphas = g_new0 (float, self->n_slots);
  lay_out (self, ranks, alphas);
  status = reserve_flat (self, &self->parameters, "LoRA parameters");
  if (status == FX_OK && with_gradients)
    status = reserve_flat (self, &self->gradients, "LoRA gradients");
  if (status != FX_OK) {
    flux_error_from_fx (error, status, "Cannot reserve the adapter");
    flux_lora_free (self);
    return NULL;
  }
  point_modules (self);
  return self;
}

FluxLora *
flux_lora_new (const FluxConfig *c, fx_backend *b, int rank, float alpha,
    const char *targets, gboolean with_gradients, GError **error)
{
  guint n;
  g_autofree FluxLoraSlot *slots = flux_lora_slots (c, &n);
  g_autofree gboolean *chosen = g_new0 (gboolean, n);
  g_autofree int *ranks = g_new0 (int, n);
  g_autofree float *alphas = g_new0 (float, n);

  if (rank < 1 || rank > MAX_RANK) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "The LoRA rank %d is out of range; use 1 to %d.", rank, MAX_RANK);
    return NULL;
  }
  if (!isfinite (alpha)) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS, "LoRA alpha must be a number.");
    return NULL;
  }
  if (!flux_slots_choose (slots, n, targets, chosen, error))
    return NULL;
  for (guint i = 0; i < n; i++) {
    ranks[i] = chosen[i] ? rank : 0;
    alphas[i] = alpha;
  }
  return flux_lora_build (c, b, ranks, alphas, with_gradients, error);
}

FluxLora *
flux_lora_new_view (const FluxLora *of)
{
  FluxLora *self = g_memdup2 (of, sizeof *of);

  self->of = of;
  self->slots = g_memdup2 (of->slots, of->n_slots * sizeof *of->slots);
  self->modules = g_memdup2 (of->modules, of->n_slots * sizeof *of->modules);
  self->alphas = g_memdup2 (of->alphas, of->n_slots * sizeof *of->alphas);
  self->tensors = g_memdup2 (of->tensors, of->n_tensors * sizeof *of->tensors);
  memset (&self->gradients, 0, sizeof self->gradients);
  point_modules (self);
  return self;
}

void
flux_lora_free (FluxLora *self)
{
  if (self == NULL)
    return;
  if (self->of == NULL)
    fx_arena_clear (&self->parameters);
  fx_arena_clear (&self->gradients);
  g_free (self->slots);
  g_free (self->modules);
  g_free (self->alphas);
  g_free (self->tensors);
  g_free (self);
}

/* ---- values ---- */

gboolean
flux_lora_init_gaussian (FluxLora *self, guint64 seed, GError **error)
{
  gsize bytes = self->n_flat * sizeof (float);
  g_autofree float *values = g_malloc0 (MAX (bytes, 1));
  int status;

  for (guint i = 0; i < self->n_tensors; i++) {
    const FluxLoraTensor *t = &self->tensors[i];
    float deviation = 1.0f / (float)self->modules[t->slot].rank;
    if (t->is_b)
      continue;
    fx_philox_normal (seed, 0, t->slot, STREAM_INIT, values + t->offset, t->n_elements);
    for (gsize j = 0; j < t->n_elements; j++)
      values[t->offset + j] *= deviation;
  }
  status = fx_upload (self->backend, self->parameters.base, values, bytes);
  if (status != FX_OK)
    flux_error_from_fx (error, status, "Cannot initialise the adapter");
  return status == FX_OK;
}

void
flux_lora_set_multiplier (FluxLora *self, float multiplier)
{
  self->multiplier = multiplier;
  for (guint i = 0; i < self->n_slots; i++) {
    if (self->modules[i].rank > 0)
      self->modules[i].scale =
          multiplier * self->alphas[i] / (float)self->modules[i].rank;
  }
}

/* ---- getters ---- */

int
flux_lora_get_rank (FluxLora *self)
{
  return self->rank;
}

float
flux_lora_get_alpha (FluxLora *self)
{
  return self->alpha;
}

const FluxLoraTensor *
flux_lora_get_tensors (FluxLora *self, guint *n)
{
  *n = self->n_tensors;
  return self->tensors;
}

const FluxLoraSlot *
flux_lora_get_slot (FluxLora *self, guint slot)
{
  return slot < self->n_slots ? &self->slots[slot] : NULL;
}

gsize
flux_lora_n_parameters (FluxLora *self)
{
  return self->n_parameters;
}

gsize
flux_lora_n_flat (FluxLora *self)
{
  return self->n_flat;
}

float *
flux_lora_parameters (FluxLora *self)
{
  return (float *)self->parameters.base;
}

float *
flux_lora_gradients (FluxLora *self)
{
  return (float *)self->gradients.base;
}

const fx_lora *
flux_lora_module (FluxLora *self, guint slot)
{
  return slot < self->n_slots && self->modules[slot].rank > 0 ? &self->modules[slot]
                                                              : NULL;
}
